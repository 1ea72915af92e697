"""Texts as sparse vectors: BM25 for descriptions (Qdrant's own encoder, for both engines) and character trigrams for titles.

The engine multiplies in the rarity of each dimension (IDF), so the vectors here hold term weights only. Knows no dense model, and
does not decide which text is encoded: `text.templates` does.
"""

import hashlib
import json
import math
import unicodedata
import zlib
from collections import Counter

import qdrant_edge as edge

from matinee.characters import normalize
from matinee.languages.folding import spell_out
from matinee.vectors import Sparse

# Written out, though most are the encoder's defaults: they enter the fingerprint, and a new release must not change them unseen. Its
# `avg_len` of 256 is for web pages: an item's text has about 48 terms, and a longer text must count as long (docs/experiments.md).
_BM25 = {"k": 1.2, "b": 0.75, "avg_len": 48.0, "lowercase": True, "ascii_folding": True}
_TITLES = "trigrams of padded words, crc32, unit length, 1"


class Bm25Encoder:
    """BM25 with the stop words and the stemmer of a language; `language=None` treats all words alike, whatever their language."""

    def __init__(self, language: str | None = "english") -> None:
        self.language = language
        neutral = {"stopwords": edge.StopwordsSet(), "stemmer": edge.DisabledStemmer()}
        self._model = edge.Bm25(edge.Bm25Config(**_BM25, **({"language": language} if language else neutral)))  # type: ignore[arg-type]

    def document(self, text: str) -> Sparse:
        return _sparse(self._model.embed_document(text))

    def query(self, text: str) -> Sparse:
        return _sparse(self._model.embed_query(text))

    def fingerprint(self) -> str:
        """Changes whenever the sparse vectors of the same text would: a part of the encoder's fingerprint."""
        described = json.dumps({"bm25": _BM25, "language": self.language, "titles": _TITLES}, sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()


def indexed_words(title: str) -> str:
    """The words whose trigrams are stored.

    They lack the vowel signs of some scripts: they find candidates, which `languages.folding.fold` compares. Every stored index was made
    with this form, so whoever changes it must change the fingerprint.
    """
    folded = spell_out(normalize("NFKD", title.casefold()))
    kept = "".join(c if c.isalnum() else " " for c in folded if not unicodedata.combining(c))
    return " ".join(kept.split()) or " ".join(title.casefold().split())


def title_trigrams(title: str, *, open_end: bool = False) -> Sparse:
    """The trigrams of a title's words (`dune` -> `  d`, ` du`, `dun`, `une`, `ne `) at unit length, so that among titles with all of a
    query's trigrams the shortest wins. `open_end` leaves the last word unfinished, as it is while somebody types."""
    words = [f"  {word} " for word in indexed_words(title).split()]
    if open_end and words:
        words[-1] = words[-1][:-1]
    counts = Counter(zlib.crc32(word[i : i + 3].encode()) for word in words for i in range(len(word) - 2))
    length = math.sqrt(sum(count * count for count in counts.values()))
    return Sparse(list(counts), [count / length for count in counts.values()])


def _sparse(vector: edge.SparseVector) -> Sparse:
    return Sparse(list(vector.indices), list(vector.values))
