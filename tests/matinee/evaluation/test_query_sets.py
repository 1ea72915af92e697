"""`matinee.evaluation.query_sets`: a set says what it is in its `set.json`, and is a set of texts without one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from matinee.errors import SourceError
from matinee.evaluation.query_sets import QuerySet, SetInfo, read_set, write_set


def make(folder: Path, name: str, info: object = None, metadata: object = None) -> QuerySet:
    (folder / name / "qrels").mkdir(parents=True)
    (folder / name / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq\tb\t1\n")
    (folder / name / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "A film", "metadata": metadata}) + "\n")
    if info is not None:
        (folder / name / "set.json").write_text(info if isinstance(info, str) else json.dumps(info))
    return read_set(folder, name, "dev")


def test_set_json_says_what_a_set_is_whatever_its_name(tmp_path: Path) -> None:
    taste = make(tmp_path, "taste", {"kind": "item", "pool": "liked", "trainable": False}, {"item": "a"})
    assert (taste.of_items, taste.pool, taste.trainable, taste.items) == (True, "liked", False, {"q": "a"})
    words = make(tmp_path, "item_words", {"kind": "text"}, {"item": "a"})
    assert (words.of_items, words.pool, words.trainable) == (False, None, True)


@pytest.mark.parametrize("name", ["item_colike", "mine"])
@pytest.mark.parametrize("metadata", [None, {"item": "b"}], ids=["words", "a known item"])
def test_without_set_json_a_set_asks_with_text(tmp_path: Path, name: str, metadata: object) -> None:
    assert make(tmp_path, name, metadata=metadata).info == SetInfo()


def test_a_set_that_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    """Its query names an item that is none of its answers, as the queries of item sets do."""
    with pytest.raises(SourceError, match=r'write .*mine.set\.json with \{"kind": "item"\}'):
        make(tmp_path, "mine", metadata={"item": "a"})
    assert make(tmp_path, "other", {"kind": "text"}, {"item": "a"}).of_items is False


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        ("not json", "Invalid JSON"),
        ({"kind": "picture"}, "kind: Input should be 'text' or 'item'"),
        ({"kinds": "text"}, "kinds: Extra inputs are not permitted"),
        ({"kind": "item"}, "query q has no metadata.item: add it"),
        ({"weight": -1}, "weight: Input should be greater than or equal to 0"),
    ],
)
def test_a_wrong_set_json_is_explained(tmp_path: Path, info: object, problem: str) -> None:
    with pytest.raises(SourceError, match=problem):
        make(tmp_path, "mine", info)


def test_a_written_set_reads_back_as_it_was(tmp_path: Path) -> None:
    queries = QuerySet("mine", {"q": "A film"}, {"q": "a"}, {"q": {"b"}}, SetInfo(kind="item", pool="liked"))
    write_set(tmp_path, "mine", {"dev": queries})
    written = json.loads((tmp_path / "mine" / "set.json").read_text())
    assert written == {"kind": "item", "texts": "keywords", "pool": "liked", "trainable": True, "weight": 1.0}
    assert read_set(tmp_path, "mine", "dev") == queries


def test_a_set_restricted_to_some_items_keeps_what_they_can_answer() -> None:
    queries = QuerySet("s", {"q": "x", "r": "y"}, {"q": "9", "r": "8"}, {"q": {"1", "2"}, "r": {"3"}})
    assert queries.restricted_to({"1"}) == replace(queries, items={"q": "9"}, relevant={"q": {"1"}})
    of_items = replace(queries, declared=SetInfo(kind="item"))
    assert of_items.restricted_to({"1"}).relevant == {}
    assert of_items.restricted_to({"1", "9"}).relevant == {"q": {"1"}}
