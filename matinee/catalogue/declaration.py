"""The declaration of a catalogue's attributes as a YAML file: read, checked, and written. Does not look at items (`proposal`)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from matinee.catalogue.columns import squash
from matinee.errors import SourceError
from matinee.filters.attributes import MAX_ATTRIBUTES, RESERVED, Attribute, Attributes
from matinee.patterns import message_of

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_PLACES = ("kind", "title", "overview", "year", "genres", "language")


def read_declaration(path: Path, columns: Mapping[str, str]) -> dict[str, Attribute]:
    """The attributes of a file, in its order. A `source` may also be a column: `columns` has its place in an item.

    Raises `SourceError` that names the attribute and what to change.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SourceError(f"--attributes {path}: can't be read as YAML: {error}") from None
    entries = content.get("attributes") if isinstance(content, Mapping) else None
    if not isinstance(entries, Mapping) or not entries:
        raise SourceError(f"--attributes {path}: has no attributes: write them below `attributes:`, each with its type and source")
    if len(entries) > MAX_ATTRIBUTES:
        raise SourceError(f"--attributes {path}: {len(entries)} attributes, at most {MAX_ATTRIBUTES} get an index")
    return {str(name): _attribute(path, str(name), entry, columns) for name, entry in entries.items()}


def as_yaml(attributes: Attributes) -> str:
    """A file that `read_declaration` reads as these attributes."""
    entries = {name: attribute.model_dump(mode="json", exclude_defaults=True) for name, attribute in attributes.items()}
    return str(yaml.safe_dump({"attributes": entries}, sort_keys=False, default_flow_style=None, allow_unicode=True, width=140))


def _attribute(path: Path, name: str, entry: object, columns: Mapping[str, str]) -> Attribute:
    where = f"--attributes {path}: {name}"
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise SourceError(f"{where}: can't be a name: use a-z, 0-9 and _, up to 40 characters, but none of {', '.join(sorted(RESERVED))}")
    if not isinstance(entry, Mapping):
        raise SourceError(f"{where}: has neither type nor source: write it like {{type: keyword, source: extra.{name}}}")
    source = entry.get("source")
    places = [_place(where, one, columns) for one in source] if isinstance(source, list) else _place(where, source, columns)
    try:
        return Attribute.model_validate({**entry, "source": tuple(places) if isinstance(places, list) else places})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise SourceError(f"{where}: {field + ': ' if field else ''}{message_of(problem)}") from None


def _place(where: str, source: Any, columns: Mapping[str, str]) -> Any:
    """The place in an item that a source names, itself or by a column."""
    if not isinstance(source, str) or source in _PLACES or source.startswith(("people.", "numbers.", "extra.")):
        return source
    targets = {target for column, target in columns.items() if squash(column) == squash(source)}
    if len(targets) != 1 or ("." not in (place := targets.pop()) and place not in _PLACES):
        known = ", ".join(map(repr, columns))
        raise SourceError(f"{where}: source {source!r} is neither a place in an item, like extra.size, nor a column that is used: {known}")
    return place
