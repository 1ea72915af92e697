"""A German catalogue is judged, and mined for negatives, by the words that its index finds: `embedder.language` reaches every scorer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from matinee.evaluation import scoring
from matinee.evaluation.query_sets import QuerySet, write_set
from matinee.evaluation.splits import Entry, write_entries
from matinee.items import Item
from train import evaluate, triplets
from train.jobs import manifests
from train.reporting.ablation import CorpusTexts
from train.reporting.measure import Corpus

STORIES = [f"Nummer {n} handelt von Wasser." for n in range(20)]
# Found by their plural alone: to a stemmer of English these are other words.
STORIES[15], STORIES[16] = "Ein Kind im Haus.", "Das Kind am Meer."
ENTRIES = [
    Entry(str(n), Item(id=str(n), title=f"T{n}", overview=story), "train" if n == 16 else "dev", str(n)) for n, story in enumerate(STORIES)
]


@pytest.fixture
def german(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared folder with a set that asks for children."""
    monkeypatch.setenv("MATINEE_EMBEDDER__LANGUAGE", "german")
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    write_entries(ENTRIES, prepared / "items.jsonl")
    manifests.write(prepared, "prepare", {}, {})
    return prepared


def test_the_report_judges_bm25_in_the_catalogues_language(german: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "sets", "text_words", {"dev": QuerySet("text_words", {"q": "Kinder"}, {}, {"q": {"15"}})})
    # The model before: no vector is needed to judge words.
    monkeypatch.setattr(evaluate, "load_encoders", lambda options: {})
    done = CliRunner().invoke(evaluate.app, [str(german), "--sets", str(tmp_path / "sets"), "--out", str(tmp_path / "out"), "--smoke"])
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    [words] = [row for row in report["table1"] if (row["system"], row["set"]) == ("BM25", "text_words")]
    assert words["recall"]["mean"] == 1
    # The paper's four films are asked about where the catalogue has them.
    assert report["table2"] == []


def test_negatives_are_mined_in_the_catalogues_language(german: Path, tmp_path: Path) -> None:
    # More children than the ten candidates that a negative is drawn from: one of another story was not found by words.
    children = [Item(id=f"child {n}", title=f"K{n}", overview=f"Das Kind und Nummer {n}.") for n in range(12)]
    items = [*(entry.item for entry in ENTRIES), *children]
    write_entries([Entry(str(item.id), item, "train", str(item.id)) for item in items], german / "items.jsonl")
    manifests.write(german, "prepare", {}, {})
    write_set(tmp_path / "sets", "text_words", {"train": QuerySet("text_words", {"q": "Kinder"}, {}, {"q": {"15"}})})
    args = [str(german), "--sets", str(tmp_path / "sets"), "--negatives", "bm25", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(triplets.app, args)
    assert done.exit_code == 0, done.output
    [row] = map(json.loads, (tmp_path / "out" / "text_words.jsonl").read_text().splitlines())
    assert row["ids"]["negative"].startswith("child") or row["ids"]["negative"] == "16"
    assert manifests.read(tmp_path / "out", "triplets")["settings"]["language"] == "german"


def test_an_ablation_searches_words_in_the_catalogues_language() -> None:
    def encode(texts: Any, kind: str = "document") -> Any:
        return np.ones((len(texts), 1), np.float32)

    asked = QuerySet("text_words", {"q": "Kinder"}, {}, {"q": {"15"}})
    found = {}
    for language in ("german", "english"):
        index = CorpusTexts(Corpus(ENTRIES, language), encode, "all metadata", "plain")  # type: ignore[arg-type]
        found[language] = set(np.flatnonzero(index.bm25(index.words)(asked)[0]))
    assert found == {"german": {15, 16}, "english": set()}


def test_stop_words_of_english_are_words_of_german() -> None:
    texts = ["die man war", "haus"]
    assert scoring.TfidfScorer(texts, "german")(["war"]).tolist() != [[0, 0]]
    with pytest.raises(ValueError, match="empty vocabulary"):
        scoring.TfidfScorer(["was he"], "english")
