"""`train.ingesting.attempts`: the item over which workers die is found, and a batch whose node went away is not split."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from matinee.disk_cache import DiskCache
from matinee.errors import ModelError
from train.ingesting.attempts import DEATHS, Attempts

IDS = [str(number) for number in range(8)]


class Death(BaseException):
    """As a kill: nothing of the worker's own code runs afterwards."""


@pytest.fixture
def values(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "attempts.sqlite")


def until_done(values: DiskCache, ids: Sequence[str], work: object) -> tuple[list[int], dict[int, str], int]:
    """Places done, reasons, and how many workers died, each followed by another that is given the same batch."""
    for deaths in range(100):
        try:
            parts, reasons = Attempts(values, "embed").isolate(ids, work)  # type: ignore[arg-type]
        except Death:
            continue
        return [place for places, _ in parts for place in places], reasons, deaths
    raise AssertionError("workers die for ever")


def test_the_item_that_kills_is_left_out(values: DiskCache) -> None:
    def work(places: Sequence[int]) -> None:
        if 5 in places:
            raise Death

    done, reasons, deaths = until_done(values, IDS, work)
    assert done == [0, 1, 2, 3, 4, 6, 7]
    assert reasons.keys() == {5}
    assert "its worker died" in reasons[5]
    assert deaths == DEATHS + 3
    assert until_done(values, IDS, work)[2] == 0, "the next worker knows it"


def test_a_batch_is_split_only_where_it_died_again_and_again(values: DiskCache) -> None:
    begun: list[int] = []

    def work(places: Sequence[int]) -> None:
        begun.append(len(places))
        if len(begun) < DEATHS:
            raise Death

    assert until_done(values, IDS, work) == ([*range(8)], {}, DEATHS - 1)
    assert begun == [8] * DEATHS


def test_an_error_beside_a_death_is_isolated_too(values: DiskCache) -> None:
    def work(places: Sequence[int]) -> None:
        if 1 in places:
            raise Death
        if 6 in places:
            raise ValueError("no")

    done, reasons, _ = until_done(values, IDS, work)
    assert done == [0, 2, 3, 4, 5, 7]
    assert reasons[6] == "ValueError: no"


def test_an_item_counts_once_however_often_its_batch_comes_again(values: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.ingesting.attempts._MOST", 2)

    def work(places: Sequence[int]) -> None:
        if {1, 6} & {*places}:
            raise Death

    for _ in range(3):
        assert until_done(values, IDS, work)[1].keys() == {1, 6}
    with pytest.raises(ModelError, match="workers died over more than 2 single items"):
        until_done(values, ["other"], lambda places: work([1]))
