"""Characters: one form for canonically equal texts, without what nobody sees.

Every text comes in through `tidy`: files, the API, and what is typed. Does not repair encodings (`catalogue.cells`).
"""

import unicodedata
from typing import Literal

import regex

# Soft hyphen, zero-width space, word joiner, byte order mark, direction marks. ZWJ and ZWNJ are not among them: Indic, Persian and
# emoji spelling needs both.
_INVISIBLE = regex.compile(r"[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
# As many marks in a row as Unicode's Stream-Safe Text Format (UAX #15) allows, and more. To normalise is to sort them, which takes Python
# quadratic time and its lock. The last two are no marks, but NFKD makes marks of them.
_TOO_MANY_MARKS = regex.compile(r"([\p{M}\uff9e\uff9f]{30})[\p{M}\uff9e\uff9f]+")


def normalize(form: Literal["NFC", "NFKD"], text: str) -> str:
    """The normal form of a text in linear time: of more than 30 marks in a row, which no language has, the first 30 stay."""
    return unicodedata.normalize(form, _TOO_MANY_MARKS.sub(r"\1", text))


def tidy(text: str) -> str:
    """The text in NFC, without invisible characters. ZWJ and ZWNJ stay."""
    return text if text.isascii() else normalize("NFC", _INVISIBLE.sub("", text))
