"""`matinee.evaluation.splits`: a split by franchise that never changes."""

import random
from collections import defaultdict
from pathlib import Path

import pytest

from matinee.errors import SourceError
from matinee.evaluation.splits import Entry, assign_splits, franchise, read_entries
from matinee.items import Item


@pytest.mark.parametrize(
    ("titles", "key"),
    [
        (("Alien", "Alien 3", "Alien: Covenant", "Alien: Resurrection"), "alien"),
        (("The Godfather", "The Godfather Part II", "The Godfather: Part III"), "godfather"),
        (("Batman", "The Batman", "Batman Begins", "Batman Returns", "Batman Forever"), "batman"),
        (("Kill Bill: Vol. 1", "Kill Bill: Vol. 2"), "kill bill"),
        (("It", "It Chapter Two"), "it"),
        (("The Jungle Book", "The Jungle Book 2"), "jungle book"),
        (("2012",), "2012"),
        (("Rocky II", "Rocky IV"), "rocky"),
    ],
)
def test_sequels_share_a_franchise(titles: tuple[str, ...], key: str) -> None:
    assert {franchise(title) for title in titles} == {key}


def entries(count: int) -> list[Entry]:
    titles = [f"{name} {number}" for name in ("Alpha", "Beta", "Gamma") for number in range(2, 9)]
    titles += [f"Standalone {chr(97 + row % 26)}{chr(97 + row // 26)}" for row in range(count - len(titles))]
    return [Entry(f"i{row}", Item(title=title), "train", franchise(title)) for row, title in enumerate(titles)]


def test_a_split_is_by_franchise_and_by_seed_alone() -> None:
    given = entries(400)
    chosen = assign_splits(given, seed=1)
    counts = {split: sum(entry.split == split for entry in chosen) for split in ("train", "dev", "test")}
    assert counts == {"train": 340, "dev": 20, "test": 40}
    sides = defaultdict(set)
    for entry in chosen:
        sides[entry.franchise].add(entry.split)
    assert all(len(splits) == 1 for splits in sides.values())
    shuffled = random.Random(0).sample(given, len(given))
    assert {entry.id: entry.split for entry in assign_splits(shuffled, seed=1)} == {entry.id: entry.split for entry in chosen}
    assert assign_splits(given, seed=2) != chosen


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{broken", "not a JSON object with the fields of an item"),
        ("[1]", "not a JSON object with the fields of an item"),
        ('{"split": "dev"}', "the field 'id' is missing"),
        ('{"id": "1", "split": "dev", "franchise": "a", "pools": [], "item": {"title": "", "kind": "film"}}', "title: "),
    ],
)
def test_a_broken_line_of_a_corpus_is_named_with_a_reason(tmp_path: Path, line: str, reason: str) -> None:
    good = '{"id": "1", "split": "dev", "franchise": "a", "pools": [], "item": {"title": "A", "kind": "film"}}'
    (tmp_path / "items.jsonl").write_text(f"{good}\n\n{line}\n")
    with pytest.raises(SourceError, match=rf"items.jsonl, line 3: {reason}.*; `python -m train.prepare` writes such a file"):
        read_entries(tmp_path)
