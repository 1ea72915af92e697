"""Lists as programs print them into one cell: JSON, Python, numpy, R, PostgreSQL, Java. Does not split plain text at separators."""

import ast
import json
import re
from typing import Any

_CLOSING = {"[": "]", "(": ")", "{": "}"}
_WRAPPED = re.compile(r"(?:c|list|set|frozenset|tuple|array|Array)(?=[(\[{])|(?=[(\[{])")
_QUOTED = re.compile(
    r"""\s*+(?:'((?:[^'\\]|\\.)*+)'|"((?:[^"\\]|\\.|"")*+)"|([^\s,'"()\[\]{}=:](?:[^,'"\[\]{}=:]|(?<=\w)'(?=\w))*+))\s*+(,?)""", re.DOTALL
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
# The end of numpy's and pandas' array(..., dtype=object).
_TYPE = re.compile(r",\s*+dtype=[\w'<>|]++\s*+\)$")
_MAX_LITERAL = 100_000
_NOTHING = frozenset(("null", "none", "nan", "na", "\\n"))


def read_list(text: str) -> list[Any] | dict[str, Any] | None:
    """The list or object that a cell holds as text, None where it holds none: a text in brackets can also be just that."""
    start = _WRAPPED.match(text)
    if start is None or not text[start.end() :]:
        return None
    inner = _TYPE.sub(")", text)[start.end() :]
    if inner[-1] != _CLOSING[inner[0]]:
        return None
    if start.end() and inner[1:2] in _CLOSING:
        return read_list(inner[1:-1].strip())
    if not start.end() and inner[0] == "(" and inner[1:].lstrip()[:1] not in ("'", '"'):
        # "(no genres listed)" and "(500) Days" are texts.
        return None
    return _parse(inner)


def _parse(text: str) -> list[Any] | dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, list | dict):
        return value
    entries = _entries(text[1:-1])
    if entries is not None and "\\" not in text:
        return entries
    try:
        literal: Any = ast.literal_eval(text) if len(text) <= _MAX_LITERAL else None
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return entries
    if isinstance(literal, dict):
        return literal if entries is None else entries
    if not isinstance(literal, list | tuple | set | frozenset) or (entries is not None and len(literal) != len(entries)):
        return entries
    return list(literal)


def _entries(inner: str) -> list[str] | None:
    """Quoted strings, separated by commas or by white space alone, or bare words separated by commas; None for anything else.

    Python's own parser would join `'a' 'b'` into one string.
    """
    entries = []
    at = 0
    while at < len(inner):
        match = _QUOTED.match(inner, at)
        if match is None:
            return None
        single, double, bare, _ = match.groups()
        if bare is None:
            entries.append(_ESCAPE.sub(r"\1", single if single is not None else double.replace('""', '"')))
        elif bare.strip().casefold() not in _NOTHING:
            entries.append(bare.strip())
        at = match.end()
    return entries
