"""The folded form in which titles and words are compared, whatever their language. Does not stem and does not correct typing errors."""

import regex

from matinee.characters import normalize
from matinee.languages import title_words

# Marks that are accents or optional points. Those of other scripts are vowels and tones: without them, it is another word. Japanese voicing
# marks belong to no script, but make other letters.
_ACCENT = regex.compile(r"(?V1)[\p{M}&&[\p{Inherited}\p{Latin}\p{Greek}\p{Cyrillic}\p{Hebrew}\p{Arabic}\p{Syriac}]--[\u3099\u309a]]")
_FORMAT = regex.compile(r"\p{Cf}")
_BETWEEN_WORDS = regex.compile(r"[^\p{L}\p{M}\p{N}]+")
_SIGNS = title_words().signs


def fold(title: str, *, joined: bool = False) -> str:
    """A title as it is compared: no case, accents or punctuation; one that is nothing but punctuation stays as it is.

    Punctuation separates words; with `joined` it is only left out, so that `S.W.A.T.` is `swat` and `Spider-Man` is `spiderman`.
    """
    plain = spell_out(_ACCENT.sub("", _FORMAT.sub("", normalize("NFKD", title.casefold()))))
    words = (_BETWEEN_WORDS.sub("", word) for word in plain.split()) if joined else _BETWEEN_WORDS.split(plain)
    return " ".join(filter(None, words)) or " ".join(title.casefold().split())


def spell_out(text: str) -> str:
    """Signs as the words that they stand for, and words without apostrophes."""
    for sign, word in _SIGNS.items():
        text = text.replace(sign, f" {word} ")
    return text.replace("'", "").replace("’", "")
