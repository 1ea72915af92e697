"""Reports without what only the operator should know: folders, buckets and addresses inside. Knows no report's form."""

import re
from typing import Any

# A URL or an absolute path, with its last part apart. Bounded in what it tries: each starts after a sign that neither can hold before it.
_PLACE = re.compile(r"(?<![\w./:@~-])(?:[a-z][a-z0-9+]{1,9}:/|~(?=/))?/(?!v1/|docs\b)[^\s'\"`,;()]*")


def without_places(report: Any) -> Any:
    """`report` (JSON), where of each path and URL in its texts only the last part is left."""
    match report:
        case str():
            return _PLACE.sub(_last_part, report)
        case dict():
            return {key: without_places(value) for key, value in report.items()}
        case list() | tuple():
            return [without_places(value) for value in report]
    return report


def _last_part(found: re.Match[str]) -> str:
    place = found[0].rstrip(".:/")
    rest = found[0][len(place) :].strip("/")
    # A URL of a host alone has no last part but its address.
    return f"...{rest}" if "://" in place and place.count("/") == 2 else f".../{place.rpartition('/')[2]}{rest}"
