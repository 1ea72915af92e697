"""A model's answer as plain prose: markup, echoes and control characters gone, whole sentences, no going round.

Does not look at items or facts: that is `fact_checks`.
"""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache

import ftfy

from matinee import languages
from matinee.characters import normalize

MAX_SENTENCES = 4
MIN_WORDS = 5

WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
# A sentence ends before white space and a capital, a digit or an opening mark, and not after an initial or a title.
# It looks for the end from the first of several marks only: from each of them, a row of dots would take quadratic time.
_ENDED = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)]*+(?=\s++[\"'“‘(]?[A-Z0-9À-Þ]|\s*+$)")
_INITIAL = re.compile(r"(?:^|[\s.])[A-Z]\.$")


@cache
def _abbreviations(language: str) -> tuple[re.Pattern[str], int]:
    """What ends no sentence, and how many last characters show it: the longest with a closing mark, and the character before it."""
    abbreviations = languages.language(language).abbreviations
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, abbreviations))})\.$"), max(map(len, abbreviations), default=0) + 4


@cache
def _field(language: str) -> re.Pattern[str]:
    return re.compile(rf"\n[^\S\n]*+(?:{'|'.join(map(re.escape, languages.language(language).form_fields))}):")


@cache
def _possessive(language: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{'|'.join(map(re.escape, languages.language(language).possessives)) or '(?!)'})$")


def clean(answer: str, language: str = languages.ENGLISH) -> str:
    """Plain prose: no markup, no echo of the form, no control characters, whole sentences, each once, at most `MAX_SENTENCES`."""
    text = html.unescape(normalize("NFC", ftfy.fix_text(answer, normalization=None)))
    text = re.sub(r"</?[a-zA-Z][^<>]{0,200}>", " ", text)
    text = re.sub(r"\*{1,3}|_{2,3}|`{1,3}|~~", "", text)
    body = next((part for part in _field(language).split(f"\n{text.strip()}") if part.strip()), "")
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", body) if part.strip()]
    # "Here is a description:" announces an answer and is none.
    body = next((part for part in paragraphs if not part.endswith(":")), "")
    body = re.sub(r"(?m)^[^\S\n]*+(?:#{1,6}\s+|[-•>]\s+|\d+[.)]\s+)", "", body)
    body = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in body)
    body = " ".join(body.split())
    if len(body) > 1 and body[0] in "\"“'‘" and body[-1] in "\"”'’" and body.count('"') <= 2:
        body = body[1:-1].strip()
    distinct = {sentence.casefold(): sentence for sentence in reversed(whole_sentences(body, language))}
    return " ".join([*distinct.values()][::-1][:MAX_SENTENCES])


def whole_sentences(text: str, language: str = languages.ENGLISH) -> list[str]:
    """The complete sentences of a text; what is cut off at its end is left out."""
    sentences, start = [], 0
    abbreviated, last_chars = _abbreviations(language)
    for match in _ENDED.finditer(text):
        end = text[max(start, match.end() - last_chars) : match.end()]
        # A text may end with "plan B.", but not with "on Mt.": there it was cut off.
        if abbreviated.search(end) or (match.end() < len(text) and _INITIAL.search(end)):
            continue
        sentence = text[start : match.end()].strip()
        if WORD.search(sentence):
            sentences.append(sentence)
        start = match.end()
    return sentences


def usable(text: str) -> bool:
    return len(WORD.findall(text)) >= MIN_WORDS


def loops(text: str, language: str = languages.ENGLISH) -> bool:
    """Whether a text goes round: one run of four words three times, or hardly any new words."""
    all_words = words(text, language)
    return max(Counter(runs(all_words, 4)).values(), default=0) >= 3 or (
        len(all_words) >= 20 and len(set(all_words)) < len(all_words) * 0.35
    )


def words(text: str, language: str = languages.ENGLISH) -> list[str]:
    """The words of a text, folded, without a possessive's ending."""
    possessive = _possessive(language)
    return [possessive.sub("", word) for word in WORD.findall(text.casefold())]


def runs(words: list[str], length: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(length)), strict=False)
