"""The chart's generated files: `values.schema.json`, the README's table, the comments below `settings` in `values.yaml`.

A comment above a key is `(TYPE) meaning`: section, settings, string, bool, int, number, quantity, map, object, list, `list string`,
`enum a|b`; numbers may carry bounds (`int >=1 <=9`). Below `settings` types and meanings come from `matinee.settings.tree`, with what is
only true of the chart (`NOTES`) behind them. Does not read templates.
"""

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from matinee.settings.reference import bounds, kinds
from matinee.settings.tree import Settings

CHART = Path(__file__).parent / "matinee"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"

NOTES = {
    "profile": "every setting below is passed as well, so it changes nothing here",
    "home": "here the mount path of the models' volume",
    "enhancer.load_at_start": "here true, so that a pod that is ready describes at once",
    "index.url": "null is the bundled one",
    "serving.hosts": "the names of the Service, the Ingress and the HTTPRoute are added",
    "events.signing_keys": "here the mounted Secret, see `feedback`",
    "tracing.endpoint": "networkPolicy.egress must let it be reached",
}
"""Setting -> what is true of it in the chart alone."""
_WIDTH = 138

_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][\w]*):")
_COMMENT = re.compile(r"^ *# (?P<text>.*)$")
_TYPED = re.compile(r"\((?P<type>[^)]+)\) (?P<meaning>.+)")


@dataclass(frozen=True)
class ChartValue:
    """One key of values.yaml."""

    path: tuple[str, ...]
    type: str
    meaning: str
    default: Any


def read_values(text: str) -> Iterator[ChartValue]:
    """Every commented key, in order. Raises where a key has no comment."""
    defaults = yaml.safe_load(text)
    comment: list[str] = []
    path: list[str] = []
    for line in text.splitlines():
        if match := _COMMENT.match(line):
            comment.append(match["text"].strip())
            continue
        match = _KEY.match(line)
        if match is None:
            comment = [] if not line.strip() else comment
            continue
        path = [*path[: len(match["indent"]) // 2], match["key"]]
        typed = _TYPED.fullmatch(" ".join(comment))
        if typed is None:
            raise SystemExit(f"values.yaml: {'.'.join(path)} has no comment of the form '(type) meaning'")
        comment = []
        yield ChartValue(tuple(path), typed["type"], typed["meaning"], _at(defaults, path))


def _at(tree: Any, path: list[str]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def with_setting_comments(text: str) -> str:
    """`values.yaml` with the comments below `settings` made from the settings tree."""
    lines: list[str] = []
    path: list[str] = []
    for line in text.splitlines():
        match = _KEY.match(line)
        if match is not None:
            path = [*path[: len(match["indent"]) // 2], match["key"]]
            if path[0] == "settings" and len(path) > 1:
                while lines and _COMMENT.match(lines[-1]):
                    lines.pop()
                lines += textwrap.wrap(
                    _setting_comment(path[1:]), _WIDTH, initial_indent=f"{match['indent']}# ", subsequent_indent=f"{match['indent']}# "
                )
        lines.append(line)
    return "\n".join(lines) + "\n"


def _setting_comment(path: list[str]) -> str:
    model: type[BaseModel] = Settings
    for key in path[:-1]:
        model = _section_of(model.model_fields[key]) or model
    field = model.model_fields[path[-1]]
    section = _section_of(field)
    meaning = _first_line(section) if section else field.description
    note = NOTES.get(".".join(path))
    kind = "section" if section else _kind(field.annotation) + "".join(f" {sign}{bound}" for sign, bound in bounds(field))
    return f"({kind}) {meaning}" + (f"; {note}" if note else "")


def _first_line(section: type[BaseModel]) -> str:
    line = inspect.cleandoc(section.__doc__ or "").partition("\n")[0].rstrip(".")
    return line[:1].lower() + line[1:]


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _kind(annotation: Any) -> str:
    first, *others = [kind for kind in kinds(annotation) if kind is not NoneType]
    if isinstance(first, str):
        return f"enum {'|'.join([first, *others])}"
    return {bool: "bool", int: "int", float: "number", tuple: "list"}.get(first, "string")


def schema(values: list[ChartValue]) -> dict[str, Any]:
    root: dict[str, Any] = {"$schema": "http://json-schema.org/draft-07/schema#", **_section()}
    settings = _plain(Settings.model_json_schema())
    root["definitions"] = settings.pop("definitions")
    # What Helm itself puts into the values of a sub-chart.
    root["properties"]["global"] = {"type": "object"}
    for value in values:
        if value.path[0] == "settings" and value.type != "settings":
            continue
        parent = root
        for key in value.path[:-1]:
            parent = parent["properties"][key]
        parent["properties"][value.path[-1]] = settings if value.type == "settings" else _type(value.type)
    decimals: dict[str, Any] = _with_decimals_as_text(root)
    return decimals


def _section() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def _type(name: str) -> dict[str, Any]:
    kind, _, rest = name.partition(" ")
    if kind == "enum":
        return {"enum": rest.split("|")}
    if kind == "list":
        return {"type": "array"} | ({"items": _type(rest)} if rest else {})
    simple: dict[str, dict[str, Any]] = {
        "section": _section(),
        "string": {"type": "string"},
        "bool": {"type": "boolean"},
        "int": {"type": "integer"},
        "number": {"type": "number"},
        "quantity": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "object": {"type": "object"},
    }
    limits = {
        {">=": "minimum", "<=": "maximum"}[sign]: float(n) if "." in n else int(n) for sign, n in re.findall(r"(>=|<=)([\d.]+)", rest)
    }
    return simple[kind] | limits


def _with_decimals_as_text(node: Any) -> Any:
    """Numbers also as text, because that is what Helm makes of a decimal in `--set`: from 0 on, or from 0 to 1, which a pattern can say."""
    if isinstance(node, list):
        return [_with_decimals_as_text(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    pattern = {1: r"^(0?\.[0-9]+|1\.0+)$", None: r"^[0-9]*\.[0-9]+$"}.get(node.get("maximum"))
    if node.get("type") == "number" and node.get("minimum") == 0 and pattern:
        return {"anyOf": [node, {"type": "string", "pattern": pattern}]}
    return {key: _with_decimals_as_text(value) for key, value in node.items()}


def _plain(node: Any) -> Any:
    """pydantic's schema without titles and defaults (Helm has its own), in draft 7's words."""
    if isinstance(node, list):
        return [_plain(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        if key in ("default", "title", "format", "writeOnly") and not isinstance(value, dict):
            continue
        if key == "default" or (key == "title" and isinstance(value, str)):
            continue
        name = "definitions" if key == "$defs" else key
        kept[name] = value.replace("#/$defs/", "#/definitions/") if key == "$ref" else _plain(value)
    return kept


def table(values: list[ChartValue]) -> str:
    rows = ["| value | type | default | meaning |", "| --- | --- | --- | --- |"]
    for value in values:
        default = "" if value.type in ("section", "settings") else f"`{json.dumps(value.default)}`"
        cells = (f"`{'.'.join(value.path)}`", value.type.replace("|", ", "), default, value.meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def files() -> dict[Path, str]:
    """What the generated files should hold."""
    text = with_setting_comments((CHART / "values.yaml").read_text(encoding="utf-8"))
    values = list(read_values(text))
    readme = CHART / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return {
        CHART / "values.yaml": text,
        CHART / "values.schema.json": json.dumps(schema(values), indent=1) + "\n",
        readme: f"{before}{BEGIN}\n{table(values)}\n{END}{after}",
    }
