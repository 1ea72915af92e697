"""Documents: one JSON object that holds the rows somewhere inside, as web services answer.

{"data": [{...}, {...}]}   {"results": {"bindings": [{...}]}}   {"10": {"success": true, "data": {...}}}
"""

from collections.abc import Callable, Mapping
from typing import Any

MAX_DEPTH = 3


def rows_inside(document: Mapping[str, Any], is_item: Callable[[Mapping[str, Any]], bool], depth: int = 0) -> list[dict[str, Any]]:
    """The rows of a document, none where it has none or more than one list of them. `is_item` knows an item by its keys."""
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
        found = [rows for part in parts.values() if depth < MAX_DEPTH and (rows := rows_inside(part, is_item, depth + 1))]
        return found[0] if len(found) == 1 else []
    return []
