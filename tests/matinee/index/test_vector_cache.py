"""`matinee.index.vector_cache`: a text is encoded once, also over several ingests, and nothing is kept that no item needs."""

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matinee.index.vector_cache import CachedEncoder, VectorCache, cache_vectors
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings


class Counting:
    """An encoder whose vectors say how many texts it had encoded before."""

    model_id, dimension = "counting", 2

    def __init__(self, fingerprint: str = "f" * 64) -> None:
        self.fingerprint = fingerprint
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str], *, kind: str) -> Any:
        vectors = [[len(self.texts) + n, len(text)] for n, text in enumerate(texts)]
        self.texts += texts
        return np.array(vectors, np.float32)


def settings_of(home: Path, **index: object) -> Settings:
    return load_settings({"home": home, "catalogue": "films", "index": index}, environ={})


def files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "ingest").glob("*"))


def test_vectors_come_back_as_they_were(tmp_path: Path) -> None:
    path, vectors = tmp_path / "v.sqlite", np.arange(8, dtype=np.float32).reshape(2, 4)
    with closing(VectorCache.open(path)) as cache:
        cache.add(["a", "b"], vectors)
    with closing(VectorCache.open(path)) as cache:
        assert {text: vector.tolist() for text, vector in cache.find(["b", "c", "b"]).items()} == {"b": [4, 5, 6, 7]}
        assert cache.find([]) == {}
        assert CachedEncoder(Counting(), cache).encode([], kind="document").shape == (0, 2)


def test_each_precision_has_vectors_of_its_own(tmp_path: Path) -> None:
    encoder, settings = Counting(), settings_of(tmp_path)
    for precision in ("int8", "fp32", "fp32"):
        with cache_vectors(encoder, precision, settings) as one:
            one.encode(["a"], kind="document")
    assert encoder.texts == ["a", "a"]
    assert len(files(tmp_path)) == 1


def test_a_later_ingest_encodes_what_is_new_and_keeps_what_it_needs(tmp_path: Path) -> None:
    encoder, settings = Counting(), settings_of(tmp_path)
    with cache_vectors(encoder, "fp32", settings) as first:
        before = first.encode(["a", "b", "a"], kind="document")
    assert encoder.texts == ["a", "b"]
    with cache_vectors(encoder, "fp32", settings) as second:
        assert second.encode(["b", "c"], kind="document")[0].tolist() == before[1].tolist()
    assert encoder.texts == ["a", "b", "c"]
    # The second needed no "a" any more.
    with cache_vectors(encoder, "fp32", settings) as third:
        third.encode(["a", "b", "c"], kind="document")
    assert encoder.texts == ["a", "b", "c", "a"]


def test_a_stopped_ingest_loses_one_part_at_most(tmp_path: Path) -> None:
    encoder, settings = Counting(), settings_of(tmp_path)

    class Stopped(Counting):
        def encode(self, texts: Sequence[str], *, kind: str) -> Any:
            if texts == ["c"]:
                raise KeyboardInterrupt
            return super().encode(texts, kind=kind)

    with pytest.raises(KeyboardInterrupt), cache_vectors(Stopped(), "fp32", settings, lambda texts: [[text] for text in texts]) as one:
        one.encode(["a", "b", "c"], kind="document")
    with cache_vectors(encoder, "fp32", settings) as again:
        again.encode(["a", "b", "c"], kind="document")
    assert encoder.texts == ["c"]


def test_another_encoder_or_catalogue_has_its_own(tmp_path: Path) -> None:
    settings, other, others = settings_of(tmp_path), Counting("e" * 64), Counting()
    with cache_vectors(Counting(), "fp32", settings) as one:
        one.encode(["a"], kind="document")
    books = settings.model_copy(update={"catalogue": "books"})
    with cache_vectors(others, "fp32", books) as theirs:
        theirs.encode(["a"], kind="document")
    assert others.texts == ["a"]
    with cache_vectors(other, "fp32", settings) as two:
        two.encode(["a"], kind="document")
    assert other.texts == ["a"]
    assert [name[:6] for name in files(tmp_path)] == ["books-", "films-"], "that of the encoder before is of no use"


def test_without_room_or_wish_nothing_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = Counting()
    with cache_vectors(encoder, "fp32", settings_of(tmp_path, keep_vectors=False)) as plain:
        assert plain is encoder
    (tmp_path / "ingest").write_text("no folder")
    with caplog.at_level(logging.WARNING), cache_vectors(encoder, "fp32", settings_of(tmp_path)) as plain:
        assert plain is encoder
    assert "no vectors are kept for the next ingest" in caplog.text
