"""Typed values: what Parquet, MongoDB and data sets of the hub hold becomes plain Python values.

Does not know columns: a value that stays strange is judged where it is used.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow
import pyarrow.compute

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
"""What a JSON text with a lone surrogate has, though others have it too."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNDECODED = re.compile("[\udc80-\udcff]")
# How RDF and Open Library write one value.
_TAGS = frozenset(("type", "value", "datatype", "xml:lang", "language"))
MAX_DEPTH = 30
"""How deep values may be nested; what is deeper is left out."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def plain(value: Any, depth: int = 0) -> Any:
    """Bytes that are text as text, typed values of MongoDB and RDF as what they stand for, the same inside lists and objects."""
    if isinstance(value, bytes):
        return _text(value)
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, Mapping) and "type" in value and "value" in value and value.keys() <= _TAGS:
        return plain(value["value"], depth + 1)
    if isinstance(value, Mapping) and len(value) == 1 and str(next(iter(value))).startswith("$"):
        return _read_extended(value)
    if isinstance(value, Mapping):
        return {str(name): plain(entry, depth + 1) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, depth + 1) for entry in value]
    return value


def plain_row(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row of any typed source."""
    return {name: plain(value) if isinstance(value, bytes | Mapping | list | tuple) else value for name, value in values.items()}


def without_surrogates(value: Any, depth: int = 0) -> Any:
    """A JSON value without lone surrogates, which are halves of a character that a program has cut in two.

    A text with bytes that could not be decoded becomes bytes again: no text.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape") if _UNDECODED.search(value) else _SURROGATE.sub("", value)
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, Mapping):
        return {name: without_surrogates(entry, depth + 1) for name, entry in value.items()}
    return [without_surrogates(entry, depth + 1) for entry in value] if isinstance(value, list) else value


def column_values(column: pyarrow.ChunkedArray | pyarrow.Array) -> list[Any]:
    """The values of an Arrow column. Of dates outside Python's calendar (before the year 1, after 9999) only the years are left."""
    try:
        values: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
    except (OverflowError, ValueError):
        if pyarrow.types.is_temporal(column.type):
            values = pyarrow.compute.year(column).to_pylist()
        else:
            values = [_scalar(value) for value in column]
    return values


def _scalar(value: Any) -> Any:
    try:
        return value.as_py(maps_as_pydicts="lossy")
    except (OverflowError, ValueError):
        return "a value that Python has no form for"


def _text(value: bytes) -> str | bytes:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return value
    return value if _CONTROL.search(text) else text


def _read_extended(value: Mapping[str, Any]) -> Any:
    """`{"$oid": "5f..."}`, `{"$numberInt": "3"}`, `{"$date": ...}`"""
    name, inner = next(iter(value.items()))
    if name == "$date":
        return _moment(inner)
    if name.startswith("$number"):
        return _number(inner)
    return inner if isinstance(inner, Mapping | list) else plain(inner)


def _number(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _moment(value: Any) -> Any:
    """A date as text, or as milliseconds since 1970."""
    inner = _read_extended(value) if isinstance(value, Mapping) and len(value) == 1 else value
    if isinstance(inner, bool) or not isinstance(inner, int | float):
        return inner
    try:
        return _EPOCH + timedelta(milliseconds=inner)
    except OverflowError:
        return str(inner)
