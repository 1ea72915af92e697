"""JSON values: those of a text, one after the other, as programs write them, also where JSON has no form for them.

Takes time in proportion to the text: nothing before a value is copied or looked at again. Does not know rows (`json_table`).
"""

import json
import re
from typing import Any

import orjson

from matinee.catalogue.encodings import BLANK

REPAIRED = "characters that JSON has no form for; they were repaired or left out"
SEVERAL = "other objects on their line; each was read"
BLANKS = re.compile(f"[{BLANK}]*+")
_STRICT = json.JSONDecoder()
# Control characters may stand in a string, where they are repaired like in any other text.
_LENIENT = json.JSONDecoder(strict=False)
_CONTROL = re.compile(r"[\x00-\x1f]")
_LONG_INTEGER = re.compile(r"\d{19}")


def values_in(text: str) -> list[tuple[Any, str, str | None]]:
    """The values of a text, one after the other, each with its own text and what was repaired in it. Raises `ValueError`."""
    reason: ValueError | None = None
    # orjson would round long integers, and two ids would be one.
    if not _LONG_INTEGER.search(text):
        try:
            return [(orjson.loads(text), text, None)]
        except orjson.JSONDecodeError as error:
            reason = error
    decoded: list[tuple[Any, str, str | None]] = []
    decoder = _STRICT
    at = end_of(BLANKS, text, 0)
    try:
        while at < len(text):
            value, end, repaired = decode(text, at, decoder)
            if repaired:
                # The strict decoder counts the lines before its error: once for each text, not for each value.
                decoder = _LENIENT
            decoded.append((value, text[at:end], repaired))
            at = end_of(BLANKS, text, end)
    except (ValueError, RecursionError) as error:
        raise reason or ValueError(str(error)) from None
    return decoded if len(decoded) == 1 else [(value, raw, repaired or SEVERAL) for value, raw, repaired in decoded]


def decode(text: str, at: int, decoder: json.JSONDecoder = _STRICT) -> tuple[Any, int, str | None]:
    """The value at a place in a text, where it ends, and what only a lenient reader takes.

    Raises `ValueError` or `RecursionError`. NaN and numbers of any size are no damage: many programs write them, though JSON has none.
    """
    if decoder is _STRICT:
        try:
            return *_STRICT.raw_decode(text, at), None
        except json.JSONDecodeError as error:
            if not error.msg.startswith("Invalid control character"):
                raise
    value, end = _LENIENT.raw_decode(text, at)
    return value, end, REPAIRED if _is_damaged(text, at, end) else None


def _is_damaged(text: str, at: int, end: int) -> bool:
    """Whether a control character stands in a string of this value, not only between its parts."""
    if not _CONTROL.search(text, at, end):
        return False
    try:
        # A copy: an error counts the lines of the whole text before it.
        _STRICT.decode(text[at:end])
    except json.JSONDecodeError:
        return True
    return False


def end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where a pattern that may be empty ends."""
    token = pattern.match(text, at)
    return token.end() if token else at
