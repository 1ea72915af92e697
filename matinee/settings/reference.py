"""The settings' reference page, from the settings themselves."""

import inspect
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from matinee.settings.tree import Settings

_HEAD = """# Settings

Every setting, its environment variable and its default (the `embedded` profile). Values come, strongest first, from `MATINEE_` environment
variables, the YAML file that `MATINEE_CONFIG` names, and the profile (`MATINEE_PROFILE=embedded|gpu`). Unknown names are refused, and
settings that contradict each other stop the start with both values named.
"""


def page() -> str:
    """The whole page, in Markdown."""
    return f"{_HEAD}\n{''.join(_section('', Settings.model_construct()))}"


def _section(prefix: str, part: BaseModel) -> Iterator[str]:
    below: list[tuple[str, BaseModel]] = []
    yield f"## {prefix.rstrip('.') or 'top level'}\n\n{inspect.cleandoc(type(part).__doc__ or '')}\n\n"
    yield "| setting and its variable | meaning | values | default |\n| --- | --- | --- | --- |\n"
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            below.append((f"{prefix}{name}.", value))
            continue
        variable = f"MATINEE_{prefix.replace('.', '__')}{name}".upper()
        yield f"| `{prefix}{name}`<br>`{variable}` | {field.description} | {_values(field)} | {_shown(value)} |\n"
    yield "\n"
    for deeper, value in below:
        yield from _section(deeper, value)


def _values(field: FieldInfo) -> str:
    signs = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}
    found = [(signs[type(limit)], getattr(limit, type(limit).__name__.lower())) for limit in field.metadata if type(limit) in signs]
    return ", ".join([_kind(field.annotation), *(f"{sign} {bound}" for sign, bound in found)])


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if args := get_args(annotation):
        return " or ".join(
            dict.fromkeys("nothing" if arg is type(None) else str(arg) if isinstance(arg, str) else _kind(arg) for arg in args)
        )
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "Path": "path", "SecretStr": "secret"}.get(
        getattr(annotation, "__name__", ""), "list" if annotation is Ellipsis else getattr(annotation, "__name__", str(annotation))
    )


def _shown(value: Any) -> str:
    if value is None or value == ():
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
