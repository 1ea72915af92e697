"""`train.reporting.ablation`: every arm ranks by what it says it does, the same items in all of them, and a difference is to raw."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matinee.errors import SourceError
from matinee.evaluation.query_sets import QuerySet, SetInfo
from matinee.evaluation.splits import Entry
from matinee.items import Item
from matinee.settings.tree import SearchSettings
from matinee.text import templates
from matinee.text.recipe import ItemTexts
from train.reporting import ablation, report
from train.reporting.ablation import BOTH, DescriptionSet
from train.reporting.measure import Corpus

WORDS = ("gold", "iron", "salt", "moon", "river", "stone", "glass", "paper", "storm", "ember")


class WordEncoder:
    """One dimension a word of `WORDS`: two texts are as alike as the words that they share."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def __call__(self, texts: Sequence[str], kind: Any = "document") -> Any:
        self.encoded += texts if kind == "document" else []
        counts = np.array([[text.lower().count(word) for word in WORDS] for text in texts], np.float32) + 1e-3
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def corpus() -> Corpus:
    items = [Item(id=str(n), kind="film", title=f"Film {n}", overview=f"About {word} and {word}.") for n, word in enumerate(WORDS)]
    return Corpus([Entry(str(n), item, "dev", str(n)) for n, item in enumerate(items)])


EVERY = np.arange(len(WORDS))
ASKED = QuerySet("text_word", {"q": "storm"}, {}, {"q": {"2"}})
SALT_IS_STORM = DescriptionSet(
    "model", "all metadata", {"2": "Film 2, a storm of storm and storm.", "3": "Film 3, the moon.", "8": "Film 8, calm."}
)


def judged(written: Sequence[DescriptionSet], asked: Sequence[QuerySet] = (ASKED,), **search: Any) -> list[dict[str, Any]]:
    table = ablation.table(corpus(), {"before": WordEncoder()}, written, asked, search=SearchSettings(**search))  # type: ignore[dict-item]
    rows: list[dict[str, Any]] = table["rows"]
    return rows


def mrr(rows: Sequence[dict[str, Any]], items: str = "all items") -> dict[tuple[str, str], float]:
    return {(row["way"], row["arm"]): round(row["mrr"]["mean"], 3) for row in rows if row["items"] == items}


def test_each_arm_uses_the_description_in_its_own_way() -> None:
    found = mrr(judged([SALT_IS_STORM]))
    # Raw: film 8 is about storms and film 2 is not. Enhanced: film 2 says storm, and film 8 no longer does.
    assert found["dense", "raw"] < 1
    assert found["dense", "enhanced"] == 1
    # Both: film 2 holds salt twice and storm thrice, and film 8 storm alone.
    assert found["dense", "both, one text"] == 0.5
    assert found["BM25", "expanded"] > found["BM25", "raw"]
    assert found["hybrid", "sparse side expanded"] > found["hybrid", "raw"]
    assert ("dense", "raw query item, enhanced index") not in found


@pytest.mark.parametrize("fusion", ["linear", "dbsf", "rrf"])
def test_hybrid_candidates_are_the_best_of_what_is_ranked(fusion: str) -> None:
    # Of all films' best ten, none is described: film 3 is the nearest of those, and 48 others are nearer.
    stories = ["Moon."] * 12 + ["Iron. Salt."] * 48
    stories[3] = "Iron. Salt. Moon."
    items = [Item(id=str(n), kind="film", title=f"Film {n}", overview=story) for n, story in enumerate(stories)]
    films = Corpus([Entry(str(n), item, "dev", str(n)) for n, item in enumerate(items)])
    described = DescriptionSet("model", "all metadata", {str(n): "Nothing is known." for n in range(12)})
    asked = QuerySet("text_word", {"q": "iron and salt"}, {}, {"q": {"3"}})
    search = SearchSettings(fusion=fusion, prefetch=10)  # type: ignore[arg-type]
    rows = ablation.table(films, {"before": WordEncoder()}, [described], [asked], search=search)["rows"]  # type: ignore[dict-item]
    assert mrr(rows, "described")["hybrid", "raw"] == 1


def test_two_vectors_are_the_larger_or_the_sum_of_two_cosines() -> None:
    index = ablation.CorpusTexts(corpus(), WordEncoder(), "all metadata", "full")  # type: ignore[arg-type]
    made = {arm.name: arm for arm in ablation.arms(index, [SALT_IS_STORM], SearchSettings(), EVERY) if arm.way == "dense"}
    raw, alone = made["raw"].score(ASKED), made["enhanced"].score(ASKED)
    np.testing.assert_allclose(made["both, two vectors, max"].score(ASKED), np.maximum(raw, alone))
    order = np.argsort(-(raw + alone))
    np.testing.assert_array_equal(np.argsort(-made["both, two vectors, sum"].score(ASKED)), order)
    # Who has no description has its raw vector under every arm.
    np.testing.assert_array_equal(raw[:, [0, 1, 5]], alone[:, [0, 1, 5]])


def test_the_recipe_both_is_what_the_index_would_hold() -> None:
    encoder = WordEncoder()
    index = ablation.CorpusTexts(corpus(), encoder, "all metadata", templates.DENSE_TEMPLATE)  # type: ignore[arg-type]
    [scores] = [
        arm.score(ASKED) for arm in ablation.arms(index, [SALT_IS_STORM], SearchSettings(), EVERY) if (arm.way, arm.name) == ("dense", BOTH)
    ]
    texts = ItemTexts([entry.item for entry in corpus().entries], [SALT_IS_STORM.texts.get(id) for id in corpus().ids], "both")
    np.testing.assert_allclose(scores, encoder(["storm"], "query") @ texts.join(encoder(texts.flat)).T, atol=1e-6)


def test_a_query_item_is_treated_as_the_indexed_ones_or_stays_raw() -> None:
    asked = QuerySet("item_word", {"q": "Film 2"}, {"q": "2"}, {"q": {"8"}}, SetInfo(kind="item"))
    found = mrr(judged([DescriptionSet("model", "all metadata", {"2": "Film 2, a storm.", "7": "Film 7."})], [asked]))
    assert found["dense", "enhanced"] == 1
    assert found["dense", "raw query item, enhanced index"] < 1


def test_only_what_all_models_described_is_compared_and_ranked_among_itself() -> None:
    other = DescriptionSet("other", "all metadata", {"2": "Film 2.", "3": "Film 3.", "9": "Film 9."})
    table = ablation.table(corpus(), {"before": WordEncoder()}, [SALT_IS_STORM, other], [ASKED])  # type: ignore[dict-item]
    assert (table["described"], table["raw"]) == (2, 8)
    ranked = mrr(table["rows"], "described")
    assert ranked["dense", "enhanced"] >= 0.5
    with pytest.raises(SourceError, match="no item of the corpus is described in all of model, none"):
        judged([SALT_IS_STORM, DescriptionSet("none", "all metadata", {"7": "Film 7."})])
    everything = DescriptionSet("all", "all metadata", {str(n): f"Film {n}." for n in range(10)})
    assert {row["items"] for row in judged([everything])} == {"described"}


def test_a_hidden_overview_is_hidden_from_raw_too() -> None:
    encoder = WordEncoder()
    hidden = DescriptionSet("model", "overview hidden", SALT_IS_STORM.texts)
    table = ablation.table(corpus(), {"before": encoder}, [hidden], [ASKED])  # type: ignore[dict-item]
    assert {row["facts"] for row in table["rows"]} == {"overview hidden"}
    assert not any("About" in text for text in encoder.encoded)
    assert mrr(table["rows"])["dense", "both, one text"] == 1


def test_differences_are_paired_to_raw_and_shown(empty_results: dict[str, Any]) -> None:
    table = ablation.table(corpus(), {"before": WordEncoder()}, [SALT_IS_STORM], [ASKED])  # type: ignore[dict-item]
    for row in table["rows"]:
        assert ("minus_raw" in row) == (row["arm"] != "raw")
    better = next(row for row in table["rows"] if row["arm"] == "enhanced" and row["items"] == "all items")
    assert better["minus_raw"]["mrr"]["mean"] == pytest.approx(better["mrr"]["mean"] - mrr(table["rows"])["dense", "raw"], abs=1e-3)
    lines = report.markdown(empty_results | {"ablation": table}).splitlines()
    assert any("both, two vectors, max" in line and "[" in line for line in lines)
    page = report.html(empty_results | {"ablation": table})
    assert "3 items are described" in page
    assert 'class="n up"' in page
    nothing = ablation.table(corpus(), {}, [], [])
    assert "Descriptions" not in report.html(empty_results | {"ablation": nothing})


def test_a_file_says_what_its_model_was_told(tmp_path: Path) -> None:
    path = tmp_path / "tuned.jsonl"
    path.write_text('{"id": "1", "description": "A."}\n{"id": "2", "description": ""}\n')
    assert DescriptionSet.read(str(path)) == DescriptionSet("tuned", "all metadata", {"1": "A."})
    (tmp_path / "tuned.manifest.json").write_text(json.dumps({"model": {"hide_overview": True}}))
    assert DescriptionSet.read(f"mine={path}") == DescriptionSet("mine", "overview hidden", {"1": "A."})
    path.write_text("no JSON")
    with pytest.raises(SourceError, match=r"line 1: not a JSON object with id and description; .*train.describe"):
        DescriptionSet.read(str(path))
    with pytest.raises(SourceError, match="cannot read"):
        DescriptionSet.read("x=nowhere.jsonl")
