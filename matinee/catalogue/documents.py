"""Documents: one JSON object that holds the rows somewhere inside, as web services answer.

{"data": [{...}, {...}]}   {"results": {"bindings": [{...}]}}   {"10": {"success": true, "data": {...}}}
{"title": {"0": ..., "1": ...}, "year": {...}}   {"columns": [...], "data": [[...], [...]]}
"""

from collections.abc import Callable, Mapping
from typing import Any

MAX_DEPTH = 3


def rows_inside(document: Mapping[str, Any], is_item: Callable[[Mapping[str, Any]], bool], depth: int = 0) -> list[dict[str, Any]]:
    """The rows of a document, none where it has none or more than one list of them. `is_item` knows an item by its keys."""
    rows = _by_column(document) if is_item(document) else _split(document, is_item)
    if rows:
        return rows
    if is_item(document):
        return [dict(document)]
    lists = [entry for entry in document.values() if isinstance(entry, list) and entry and isinstance(entry[0], Mapping)]
    fitting = [entries for entries in lists if is_item(entries[0])]
    if len(fitting) == 1:
        return [dict(row) for row in fitting[0] if isinstance(row, Mapping)]
    parts = {key: part for key, part in document.items() if isinstance(part, Mapping)}
    unwrapped = {key: part["data"] if isinstance(part.get("data"), Mapping) else part for key, part in parts.items()}
    if unwrapped and len(unwrapped) == len(document) and all(map(is_item, unwrapped.values())):
        # By id: {"620": {"name": ...}, ...}
        return [{"id": key} | dict(part) for key, part in unwrapped.items()]
    if len(parts) == 1 or not lists:
        nested = [rows for part in parts.values() if depth < MAX_DEPTH and (rows := rows_inside(part, is_item, depth + 1))]
        return nested[0] if len(nested) == 1 else []
    return []


def _by_column(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table that is written column by column, as pandas and R do; none where it is no such table."""
    columns = [
        list(column.values()) if isinstance(column, Mapping) and all(map(str.isdecimal, column)) else column for column in document.values()
    ]
    if not all(isinstance(column, list) for column in columns) or len({len(column) for column in columns}) != 1 or len(columns[0]) < 2:
        return []
    keys = [[*column] for column in document.values() if isinstance(column, Mapping)]
    if any(key != keys[0] for key in keys):
        return []
    return [dict(zip(document, row, strict=True)) for row in zip(*columns, strict=True)]


def _split(document: Mapping[str, Any], is_item: Callable[[Mapping[str, Any]], bool]) -> list[dict[str, Any]]:
    """The rows of `{"columns": [...], "data": [[...], ...]}`; none where it is no such table."""
    names, rows = document.get("columns"), document.get("data")
    if not isinstance(names, list) or not isinstance(rows, list) or not all(isinstance(name, str) for name in names):
        return []
    fits = is_item(dict.fromkeys(names)) and all(isinstance(row, list) and len(row) == len(names) for row in rows)
    return [dict(zip(names, row, strict=True)) for row in rows] if fits else []
