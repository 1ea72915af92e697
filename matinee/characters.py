"""Characters: one form for canonically equal texts, without what nobody sees, and the folded form in which titles are compared.

Every text comes in through `tidy`: files, the API, and what is typed. Does not repair encodings (`catalogue.cells`).
"""

import unicodedata
from typing import Literal

import regex

# Soft hyphen, zero-width space, word joiner, byte order mark, direction marks. ZWJ and ZWNJ are not among them: Indic, Persian and
# emoji spelling needs both.
_INVISIBLE = regex.compile(r"[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
# Marks that are accents or optional points. Those of other scripts are vowels and tones: without them, it is another word. Japanese voicing
# marks belong to no script, but make other letters.
_ACCENT = regex.compile(r"(?V1)[\p{M}&&[\p{Inherited}\p{Latin}\p{Greek}\p{Cyrillic}\p{Hebrew}\p{Arabic}\p{Syriac}]--[\u3099\u309a]]")
# As many marks in a row as Unicode's Stream-Safe Text Format (UAX #15) allows, and more. To normalise is to sort them, which takes Python
# quadratic time and its lock. The last two are no marks, but NFKD makes marks of them.
_TOO_MANY_MARKS = regex.compile(r"([\p{M}\uff9e\uff9f]{30})[\p{M}\uff9e\uff9f]+")
_FORMAT = regex.compile(r"\p{Cf}")
_BETWEEN_WORDS = regex.compile(r"[^\p{L}\p{M}\p{N}]+")


def normalize(form: Literal["NFC", "NFKD"], text: str) -> str:
    """The normal form of a text in linear time: of more than 30 marks in a row, which no language has, the first 30 stay."""
    return unicodedata.normalize(form, _TOO_MANY_MARKS.sub(r"\1", text))


def tidy(text: str) -> str:
    """The text in NFC, without invisible characters. ZWJ and ZWNJ stay."""
    return text if text.isascii() else normalize("NFC", _INVISIBLE.sub("", text))


def fold(title: str, *, joined: bool = False) -> str:
    """A title as it is compared: no case, accents or punctuation; one that is nothing but punctuation stays as it is.

    Punctuation separates words; with `joined` it is only left out, so that `S.W.A.T.` is `swat` and `Spider-Man` is `spiderman`.
    """
    plain = _FORMAT.sub("", normalize("NFKD", title.casefold()))
    plain = _ACCENT.sub("", plain).replace("&", " and ").replace("'", "").replace("’", "")
    words = (_BETWEEN_WORDS.sub("", word) for word in plain.split()) if joined else _BETWEEN_WORDS.split(plain)
    return " ".join(filter(None, words)) or " ".join(title.casefold().split())
