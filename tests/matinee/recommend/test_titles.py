import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from matinee.errors import AmbiguousTitleError, DeadlineError, NotFoundError, TooManyTitlesError
from matinee.index.edge.store import EdgeStore
from matinee.index.protocols import Index
from matinee.index.types import TEXT, TITLE, Manifest, Point, PopularQuery, SparseQuery, item_payload, tombstone
from matinee.items import Item
from matinee.models.bm25 import title_trigrams
from matinee.recommend import titles
from matinee.recommend.titles import MAX_TITLES, Resolution, check_count, resolve_all, suggest
from tests.matinee.linear_time import LENGTH, Shape, is_linear
from tests.title_lookup import resolve

FILMS = [
    ("Dune", 1984, 60),
    ("Dune", 2021, 90),
    ("Dune: Part Two", 2024, 95),
    ("Interstellar", 2014, 99),
    ("Internal Affairs", 1990, 10),
    ("Blade Runner", 1982, 80),
    ("Blade Runner 2049", 2017, 70),
    ("2012", 2009, 30),
    ("1917", 2019, 50),
    ("The Matrix", 1999, 97),
    ("The Matrix Reloaded", 2003, 65),
    ("Toy Story", 1995, 85),
    ("Toy Story 3", 2010, 75),
    ("Rocky II", 1979, 40),
    ("Rocky III", 1982, 41),
    ("It", 2017, 55),
    ("It Follows", 2014, 35),
    ("Alien", 1979, 88),
    ("Aliens", 1986, 84),
    ("Amélie", 2001, 77),
    ("Star Wars: Episode IV - A New Hope", 1977, 98),
    ("Star Wars: Episode V - The Empire Strikes Back", 1980, 96),
    ("The Lord of the Rings: The Fellowship of the Ring", 2001, 94),
    ("The Ring", 2002, 33),
    ("Solaris", None, 20),
    ("!!!", 2000, 1),
    ("M*A*S*H", 1970, 45),
    ("S.W.A.T.", 2003, 15),
    ("मेला", 2000, 12),
    ("Harbour Story (1994)", None, 9),
    ("Quay, The (1998)", None, 8),
    ("Clerk of Rye, The (Le commis) (2003)", None, 7),
    ("The Lamp Cycle (The Lamp Cycle, #1)", 2008, 6),
    ("Embers of the Lamp (The Lamp Cycle, #2)", 2009, 5),
    ("می\u200cروم", 2011, 4),
]
# Many titles share the trigrams of "It": the exact one must still be among the best twenty.
OTHERS = ["Once", "Twice", "Here", "There", "Again", "Tomorrow", "Never", "Late", "Soon"] * 4
FILMS += [(f"It Happened {word}", 1930 + i, i) for i, word in enumerate(OTHERS)]


def film(title: str, year: int | None, popularity: int, kind: str = "film") -> Point:
    item = Item(kind=kind, title=title, year=year, numbers={"popularity": popularity})
    vector = np.ones(2, dtype=np.float32) / np.float32(np.sqrt(2))
    return Point(item.uid("films"), item_payload(item, origin="file", revision=1), {TEXT: vector}, {TITLE: title_trigrams(title)})


async def filled(folder: Path, *, titles: bool) -> Index:
    manifest = Manifest(version="v1", catalogue="films", fingerprint="f" * 64, recipe="raw", dimensions={TEXT: 2}, titles=titles)
    opened = await EdgeStore(folder, "films").create(manifest)
    points = [film(*facts) for facts in FILMS]
    gone = film("Vanished", 1999, 5)
    await opened.upsert([*points, film("Dune", 1965, 45, kind="book"), gone])
    await opened.upsert([tombstone(gone.id, revision=2)])
    return opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def index(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Index]:
    opened = await filled(tmp_path_factory.mktemp("titles"), titles=True)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def older(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Index]:
    """A version that was built before there were folded titles."""
    opened = await filled(tmp_path_factory.mktemp("older"), titles=False)
    yield opened
    await opened.close()


TYPED = [
    ("Interstellar", "Interstellar", 2014),
    ("Intersteller", "Interstellar", 2014),
    ("INTERSTELLAR ", "Interstellar", 2014),
    ("interstellar (2014)", "Interstellar", 2014),
    ("Dune (2021)", "Dune", 2021),
    ("dune 1984", "Dune", 1984),
    ("Dune, 2021", "Dune", 2021),
    ("Blade Runner 2049", "Blade Runner 2049", 2017),
    ("Blade Runner 1982", "Blade Runner", 1982),
    ("Blade Runner", "Blade Runner", 1982),
    ("2012", "2012", 2009),
    ("1917 (2019)", "1917", 2019),
    ("Matrix", "The Matrix", 1999),
    ("Matrix, The (1999)", "The Matrix", 1999),
    ("Toy Story", "Toy Story", 1995),
    ("Rocky 2", "Rocky II", 1979),
    ("It", "It", 2017),
    ("it (2017)", "It", 2017),
    ("Alien", "Alien", 1979),
    ("Alein", "Alien", 1979),
    ("amelie", "Amélie", 2001),
    ("Amelie (2002)", "Amélie", 2001),
    ("Star Wars: Episode IV - A New Hope", "Star Wars: Episode IV - A New Hope", 1977),
    ("lord of the rings fellowship of the ring", "The Lord of the Rings: The Fellowship of the Ring", 2001),
    ("Solaris (1972)", "Solaris", None),
    ("!!!", "!!!", 2000),
    ("MASH", "M*A*S*H", 1970),
    ("m.a.s.h.", "M*A*S*H", 1970),
    ("swat", "S.W.A.T.", 2003),
    ("The S.W.A.T. (2003)", "S.W.A.T.", 2003),
    ("मेला", "मेला", 2000),
    ("Harbour Story", "Harbour Story (1994)", 1994),
    ("harbour story 1994", "Harbour Story (1994)", 1994),
    ("The Quay", "Quay, The (1998)", 1998),
    ("Quay", "Quay, The (1998)", 1998),
    ("The Clerk of Rye", "Clerk of Rye, The (Le commis) (2003)", 2003),
    ("Le commis (2003)", "Clerk of Rye, The (Le commis) (2003)", 2003),
    ("The Lamp Cycle", "The Lamp Cycle (The Lamp Cycle, #1)", 2008),
    ("Embers of the Lamp", "Embers of the Lamp (The Lamp Cycle, #2)", 2009),
    ("Interstellar (Space, #1)", "Interstellar", 2014),
    ("Inter\u00adstel\u200blar", "Interstellar", 2014),
    ("Ame\u0301lie", "Amélie", 2001),
    ("میروم", "می\u200cروم", 2011),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("typed", "title", "year"), TYPED)
async def test_what_is_typed_is_understood(index: Index, typed: str, title: str, year: int | None) -> None:
    found = await resolve(index, typed)
    assert (found.title, found.year, found.kind) == (title, year, "film")


@pytest.mark.asyncio(loop_scope="module")
async def test_remakes_are_asked_about(index: Index) -> None:
    with pytest.raises(AmbiguousTitleError, match=r"'dune' could be any of Dune \(.*add the year") as caught:
        await resolve(index, "dune")
    assert {(found["year"], found["kind"]) for found in caught.value.candidates} == {(1984, "film"), (2021, "film"), (1965, "book")}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("Dune (1999)", "Dune"),
        ("Toy Story 2", "Toy Story"),
        ("Vanished", "nearest|nor anything"),
        ("Zzyzx", "nearest|nor anything"),
        ("माली", "the nearest are मेला"),
        ("Harbour Story (1990)", r"nearest are Harbour Story \(1994\),"),
        ("", "nor"),
    ],
)
async def test_what_is_not_there_is_not_guessed(index: Index, typed: str, named: str) -> None:
    with pytest.raises(NotFoundError, match=named):
        await resolve(index, typed)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("du", ["Dune: Part Two", "Dune", "Dune", "Dune"]),
        ("inters", ["Interstellar", "Internal Affairs"]),
        ("interstelar", ["Interstellar"]),
        ("matr", ["The Matrix", "The Matrix Reloaded"]),
        ("empire", ["Star Wars: Episode V - The Empire Strikes Back"]),
        ("ame", ["Amélie"]),
        ("zzyzx", []),
        ("  ", []),
    ],
)
async def test_suggestions_go_on_from_what_was_typed(index: Index, typed: str, expected: list[str]) -> None:
    assert [hit.payload["title"] for hit in await suggest(index, typed)] == expected


@pytest.mark.asyncio(loop_scope="module")
async def test_suggestions_are_as_many_as_asked_for(index: Index) -> None:
    assert len(await suggest(index, "it", 3)) == 3


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("Dune, (2021)  ", [("Dune", 2021)]),
        ("Dune [1984]", [("Dune", 1984)]),
        ("Dune\t2021", [("Dune", 2021)]),
        (f"{'a' * 400}, 2021", [("a" * 400, 2021)]),
        (f"Dune{' ' * 400}(2021){' ' * 400}", [("Dune", 2021)]),
        ("2012", []),
        (", 2012", []),
        ("Dune2021", []),
        ("Dune (2021) again", []),
        ("Dune 2121", []),
        ("", []),
    ],
)
async def test_a_year_is_read_at_the_end_only(typed: str, read: list[tuple[str, int]]) -> None:
    assert titles._split_year(typed) == read


@pytest.mark.asyncio(loop_scope="module")
async def test_titles_are_resolved_together_each_as_alone(index: Index) -> None:
    typed = ["Alien", "dune", "Zzyzx", "Alien", *(f"It Happened {word}" for word in OTHERS[:9]), *(str(n) for n in range(1900, 1930))]
    found = await resolve_all(index, typed)
    assert list(found) == list(dict.fromkeys(typed))
    for title, one in found.items():
        try:
            assert one == await resolve(index, title)
        except (NotFoundError, AmbiguousTitleError) as error:
            assert (type(one), str(one)) == (type(error), str(error))  # noqa: PT017


@pytest.mark.asyncio(loop_scope="module")
async def test_an_older_version_understands_as_much(index: Index, older: Index) -> None:
    typed = [typed for typed, *_ in TYPED] + ["dune", "Vanished", "Toy Story 2"]
    found, before = [await resolve_all(one, typed) for one in (index, older)]
    for title in typed:
        one, other = found[title], before[title]
        # Namesakes and near misses may stand in another order.
        assert one == other if isinstance(one, Resolution) else type(one) is type(other)


@pytest.mark.asyncio(loop_scope="module")
async def test_an_exact_title_is_looked_up_and_only_others_are_searched_by_trigrams(index: Index) -> None:
    asked: list[set[type]] = []

    class Seen:
        manifest = index.manifest

        async def search(self, searches: Any) -> Any:
            asked.append({type(search.query) for search in searches})
            return await index.search(searches)

    seen: Any = Seen()
    exact = ["interstellar (2014)", "DUNE, 2021", "amelie", "swat", "Matrix, The (1999)"]
    assert all(isinstance(one, Resolution) for one in (await resolve_all(seen, exact)).values())
    assert asked == [{PopularQuery}]
    asked.clear()
    assert all(isinstance(one, Resolution) for one in (await resolve_all(seen, ["Alein", "Alien"])).values())
    assert asked == [{PopularQuery}, {SparseQuery}]


class Watched:
    """An index that calls `before` ahead of each search."""

    def __init__(self, index: Index, before: Any) -> None:
        self.index, self.before, self.searches = index, before, 0
        self.manifest = index.manifest

    async def search(self, searches: Any) -> Any:
        self.searches += 1
        await self.before(self.searches)
        return await self.index.search(searches)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_search_that_hangs_takes_the_budget_and_no_longer(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: int) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(titles, "BUDGET_S", 0.05)
    watched: Any = Watched(index, hang)
    found = await resolve_all(watched, ["Alien", "Aliens"])
    assert {type(one) for one in found.values()} == {DeadlineError}
    assert "longer than 0.05 s: send ids" in str(found["Alien"])


@pytest.mark.asyncio(loop_scope="module")
async def test_what_was_found_within_the_budget_is_kept(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    late = 0.0

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return time.monotonic() + late

    async def slow(search: int) -> None:
        nonlocal late
        late = 1000.0 if search > 1 else 0.0

    monkeypatch.setattr(titles, "time", Clock)
    monkeypatch.setattr(titles, "BUDGET_S", 500.0)
    watched: Any = Watched(index, slow)
    first = ["Alien", *(f"It Happened {word} {1930 + i}" for i, word in enumerate(OTHERS[:19]))]
    found = await resolve_all(watched, [*first, "Aliens", "Amélie", *map(str, range(30))])
    assert all(isinstance(found[title], Resolution) for title in first)
    assert {type(one) for title, one in found.items() if title not in first} == {DeadlineError}
    assert watched.searches == 2


def test_too_many_titles_are_refused() -> None:
    check_count([str(n) for n in range(MAX_TITLES)])
    with pytest.raises(TooManyTitlesError, match=r"21 titles, at most 20 .* send ids instead"):
        check_count([str(n) for n in range(MAX_TITLES + 1)])


@pytest.mark.parametrize("unit", ["a", ",", " ", "(", "a,", "a ", ".", "1999 ", "the ", "\u0301", "ii ", "&", "(1999)", "日"])
def test_a_title_of_any_length_is_read_and_compared_in_linear_time(unit: str) -> None:
    candidate = titles._text("The Lord of the Rings: The Fellowship of the Ring")

    def read_and_compare(typed: str) -> None:
        titles._candidate(typed)
        for reading in titles._readings(typed):
            titles._similarity(reading.text, candidate)

    assert is_linear(read_and_compare, Shape((unit,), "a", "x"))
    assert is_linear(read_and_compare, Shape((unit,), "a", " (1999)"))


@pytest.mark.asyncio(loop_scope="module")
async def test_a_long_title_finds_nothing(index: Index) -> None:
    for typed in ("a" + "," * LENGTH + "x", "word " * (LENGTH // 5)):
        with pytest.raises(NotFoundError):
            await resolve(index, typed)
        assert await suggest(index, typed) == []
