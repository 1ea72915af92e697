import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.models.bm25 import Bm25Encoder, title_trigrams


def test_bm25_stems_drops_stop_words_and_folds_accents() -> None:
    encoder = Bm25Encoder()
    assert encoder.query("the Runnings in Amélie").indices == encoder.query("running amelie").indices
    assert set(encoder.query("running").indices) < set(encoder.document("a man runs from wolves").indices)
    assert encoder.query("the of and").indices == []
    assert encoder.query("").values == []


def test_bm25_weighs_repetition_in_documents_only() -> None:
    encoder = Bm25Encoder()
    once, thrice = encoder.document("wolf"), encoder.document("wolf wolf wolf")
    assert thrice.values[0] > once.values[0]
    assert encoder.query("wolf wolf").values == [1.0]


def test_the_language_is_a_setting_and_enters_the_fingerprint() -> None:
    english, german, neutral = Bm25Encoder(), Bm25Encoder("german"), Bm25Encoder(None)
    assert german.query("der und").indices == []
    assert len(neutral.query("the and").indices) == 2
    assert len({encoder.fingerprint() for encoder in (english, german, neutral)}) == 3
    assert Bm25Encoder().fingerprint() == english.fingerprint()
    with pytest.raises(ValueError, match="klingon"):
        Bm25Encoder("klingon")


def test_the_encoding_is_the_one_that_stored_indexes_were_made_with() -> None:
    # Golden values: whoever changes them invalidates every index that exists, and must change the fingerprint too.
    assert Bm25Encoder().query("wolf").indices == [1189835409]
    assert title_trigrams("Up").indices == [zlib.crc32(trigram) for trigram in (b"  u", b" up", b"up ")]
    assert Bm25Encoder().fingerprint()[:16] == "d3f04a9a3934937f"


def test_trigrams_of_what_is_being_typed_leave_the_end_open() -> None:
    typed, title = set(title_trigrams("Interst", open_end=True).indices), set(title_trigrams("Interstellar").indices)
    assert typed < title
    assert not set(title_trigrams("Interst").indices) <= title
    assert title_trigrams("") == title_trigrams("   ", open_end=True)


@given(st.text(max_size=60))
def test_any_title_gives_unique_stable_dimensions_of_unit_length(title: str) -> None:
    vector = title_trigrams(title)
    assert len(set(vector.indices)) == len(vector.indices) == len(vector.values)
    assert all(0 <= index < 2**32 for index in vector.indices)
    assert sum(value * value for value in vector.values) == pytest.approx(1.0 if title.strip() else 0.0)
    assert title_trigrams(json.loads(json.dumps(title))) == vector
