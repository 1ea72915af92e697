"""The query sets of the probe: which are about the catalogue, and by whose ids."""

from pathlib import Path
from typing import Any

import pytest

from matinee.errors import SourceError
from matinee.settings.serving import ProbeSettings
from serve.probe import queries
from tests.serve.probe.query_files import uid, write_set


def test_the_shipped_set_is_for_the_demo_alone_and_all_its_films_are_bundled(local_graph: Any) -> None:
    shipped = queries.by_index_id(*queries.for_catalogue(None, "demo", 200), "demo")
    assert shipped.name == "demo"
    assert len(shipped.texts) >= 40
    assert set().union(*shipped.relevant.values()) <= {film.uid("demo") for film in local_graph.demo_films()}
    assert queries.for_catalogue(None, "films", 200) == []


def test_a_folder_of_sets_and_a_bounded_choice_that_stays(tmp_path: Path) -> None:
    labels = {f"q{i}": ["a"] for i in range(30)}
    for name in ("b", "a"):
        write_set(tmp_path / name, labels)
    read = queries.read(ProbeSettings(queries=tmp_path))
    first, second = queries.for_catalogue(read, "films", 7)
    assert (first.name, second.name) == ("a", "b")
    assert len(first.texts) == 7
    assert first.texts == second.texts
    assert set(first.texts) != {f"q{i}" for i in range(7)}, "a sample, not the beginning"


def test_ids_of_the_index_are_taken_as_they_are(tmp_path: Path) -> None:
    read = queries.read(ProbeSettings(queries=write_set(tmp_path / "mine", {"q": [uid("a"), "b"]})))
    asked = queries.by_index_id(*queries.for_catalogue(read, "films", 9), "films")
    assert asked.relevant["q"] == {uid("a"), uid("b")}


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("mine", None, r"there are dev: set probe.split"),
        ("nothing here", None, "should be a BEIR folder"),
        ("mine", "{not json\n", "malformed"),
        ("mine", '{"id": "x"}\n', "no _id and text"),
        ("mine", '{"_id": "other", "text": "x"}\n', "is not in queries.jsonl"),
    ],
)
def test_sets_that_can_not_be_used(tmp_path: Path, name: str, damage: str | None, message: str) -> None:
    folder = write_set(tmp_path / "mine", split="test" if damage else "dev")
    if damage:
        (folder / "queries.jsonl").write_text(damage)
    with pytest.raises(SourceError, match=message):
        queries.read(ProbeSettings(queries=tmp_path / name))


def test_a_set_of_items_that_names_none(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "taste")
    (folder / "set.json").write_text('{"kind": "item"}')
    with pytest.raises(SourceError, match=r"metadata\.item"):
        queries.read(ProbeSettings(queries=folder))
