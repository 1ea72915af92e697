"""Make `values.schema.json` and the README's table from the comments in `values.yaml` and from the settings tree.

    python helm/generate.py           # writes both
    python helm/generate.py --check   # exits 1 where they differ from what it would write

A comment above a key is `(TYPE) meaning`: section, settings, string, bool, int, number, quantity, map, object, list, `list string`,
`enum a|b`; numbers may carry bounds (`int >=1 <=9`). Below `settings` the types of `matinee.settings.tree` hold. Does not read templates.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from matinee.settings.tree import Settings

CHART = Path(__file__).parent / "matinee"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"

_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][\w]*):")
_COMMENT = re.compile(r"^ *# (?P<text>.*)$")
_TYPED = re.compile(r"\((?P<type>[^)]+)\) (?P<meaning>.+)")


@dataclass(frozen=True)
class Value:
    """One key of values.yaml."""

    path: tuple[str, ...]
    type: str
    meaning: str
    default: Any


def read_values(text: str) -> Iterator[Value]:
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
        yield Value(tuple(path), typed["type"], typed["meaning"], _at(defaults, path))


def _at(tree: Any, path: list[str]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def schema(values: list[Value]) -> dict[str, Any]:
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
    return root


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
    bounds = {
        {">=": "minimum", "<=": "maximum"}[sign]: float(n) if "." in n else int(n) for sign, n in re.findall(r"(>=|<=)([\d.]+)", rest)
    }
    return simple[kind] | bounds


def _plain(node: Any) -> Any:
    """pydantic's schema without titles and defaults (Helm has its own), in draft 7's words."""
    if isinstance(node, list):
        return [_plain(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        if key in ("default", "title", "format", "writeOnly", "description") and not isinstance(value, dict):
            continue
        if key == "default" or (key == "title" and isinstance(value, str)):
            continue
        name = "definitions" if key == "$defs" else key
        kept[name] = value.replace("#/$defs/", "#/definitions/") if key == "$ref" else _plain(value)
    return kept


def table(values: list[Value]) -> str:
    rows = ["| value | type | default | meaning |", "| --- | --- | --- | --- |"]
    for value in values:
        default = "" if value.type in ("section", "settings") else f"`{json.dumps(value.default)}`"
        cells = (f"`{'.'.join(value.path)}`", value.type.replace("|", ", "), default, value.meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def files() -> dict[Path, str]:
    """What the generated files should hold."""
    values = list(read_values((CHART / "values.yaml").read_text(encoding="utf-8")))
    readme = CHART / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return {
        CHART / "values.schema.json": json.dumps(schema(values), indent=1) + "\n",
        readme: f"{before}{BEGIN}\n{table(values)}\n{END}{after}",
    }


def main() -> None:
    stale = [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        if stale:
            raise SystemExit(f"stale: {', '.join(map(str, stale))}: run python helm/generate.py")
        return
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
