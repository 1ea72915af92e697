"""The settings' reference page, from the settings themselves."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from matinee.settings.load import load_settings
from matinee.settings.tree import Settings

_HEAD = """# Settings

For whoever configures Matinee. Values come, strongest first, from:

1. flags of a command, such as `--port`
2. environment variables that begin with `MATINEE_`
3. the YAML file that `MATINEE_CONFIG` names
4. the profile: `MATINEE_PROFILE=embedded` (the default, a laptop) or `gpu` (a cluster)

The column "default" is of the profile `embedded`. Where the profile `gpu` differs, it says so. The chart has values of its own:
[the chart](../helm/matinee/README.md). Settings are read when a process starts. On a cluster, some change in place with `helm upgrade`.

Unknown names are refused. Settings that contradict each other stop the start, and the error names both values.

```yaml
# settings.yaml; use it with MATINEE_CONFIG=settings.yaml
catalogue: films
serving:
  port: 8080
  keys:
    - {name: shop, sha256: "64 hex digits", scopes: [read]}
```

| in a variable | write |
| --- | --- |
| a setting in a section | `__` between the names: `MATINEE_SERVING__PORT=8080` |
| a list | JSON: `MATINEE_SERVING__HOSTS='["films.example.org"]'` |
| a list of objects | JSON: `MATINEE_SERVING__KEYS='[{"name": "shop", "sha256": "64 hex digits", "scopes": ["read"]}]'` |
| nothing | `null`. An empty variable counts as not set. |
"""


def page() -> str:
    """The whole page, in Markdown."""
    return f"{_HEAD}\n{''.join(_section('', Settings.model_construct(), load_settings(environ={'MATINEE_PROFILE': 'gpu'})))}"


def _section(prefix: str, part: BaseModel, gpu: BaseModel) -> Iterator[str]:
    below: list[tuple[str, BaseModel, BaseModel]] = []
    yield f"## {prefix.rstrip('.') or 'top level'}\n\n{inspect.cleandoc(type(part).__doc__ or '')}\n\n"
    yield "| setting and its variable | meaning | values | default |\n| --- | --- | --- | --- |\n"
    for name, field in type(part).model_fields.items():
        value, on_gpu = getattr(part, name), getattr(gpu, name)
        if isinstance(value, BaseModel):
            below.append((f"{prefix}{name}.", value, on_gpu))
            continue
        variable = f"MATINEE_{prefix.replace('.', '__')}{name}".upper()
        yield f"| `{prefix}{name}`<br>`{variable}` | {field.description} | {_values(field)} | {_default(value, on_gpu)} |\n"
    yield "\n"
    for name, field in type(part).model_fields.items():
        if (entry := entry_of(field)) is not None:
            yield from _entries(f"{prefix}{name}", entry)
    for deeper, value, on_gpu in below:
        yield from _section(deeper, value, on_gpu)


def entry_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a list's entries; None where it is no list, or one of plain values."""
    kinds = get_args(field.annotation) if get_origin(field.annotation) is tuple else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _entries(name: str, entry: type[BaseModel]) -> Iterator[str]:
    yield f"Each entry of `{name}`:\n\n| field | meaning | values | default |\n| --- | --- | --- | --- |\n"
    for key, field in entry.model_fields.items():
        default = "required" if field.is_required() else _shown(field.get_default())
        yield f"| `{key}` | {field.description} | {_values(field)} | {default} |\n"
    yield "\n"


def _values(field: FieldInfo) -> str:
    signs = {">=": "≥", "<=": "≤"}
    return ", ".join([_kind(field.annotation), *(f"{signs.get(sign, sign)} {bound}" for sign, bound in bounds(field))])


def bounds(field: FieldInfo) -> list[tuple[str, float]]:
    """The limits of a number, each with its sign: `>=`, `>`, `<=` or `<`."""
    signs = {Ge: ">=", Gt: ">", Le: "<=", Lt: "<"}
    return [(signs[type(limit)], getattr(limit, type(limit).__name__.lower())) for limit in field.metadata if type(limit) in signs]


def kinds(annotation: Any) -> list[Any]:
    """What a value may be: types, the texts of a `Literal`, `tuple` for any list."""
    if get_origin(annotation) is Annotated:
        return kinds(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return [tuple]
    args = get_args(annotation)
    return [kind for arg in args for kind in kinds(arg)] if args else [annotation]


_NAMES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    SecretStr: "secret",
    tuple: "list",
    NoneType: "nothing",
}


def _kind(annotation: Any) -> str:
    named = (kind if isinstance(kind, str) else _NAMES.get(kind) or kind.__name__ for kind in kinds(annotation))
    return " or ".join(dict.fromkeys(named))


def _default(value: Any, on_gpu: Any) -> str:
    return _shown(value) if on_gpu == value else f"{_shown(value) or 'nothing'}; gpu: {_shown(on_gpu) or 'nothing'}"


def _shown(value: Any) -> str:
    if value is None or value == ():
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
