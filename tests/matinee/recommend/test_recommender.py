"""The recommender: what likes, dislikes and text mean, on the real encoder and the embedded engine over the bundled films."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import orjson
import pytest
import pytest_asyncio
from qdrant_client import AsyncQdrantClient

from matinee.errors import AmbiguousTitleError, MatineeError, NotFoundError
from matinee.filters import ItemFilter
from matinee.index.active import ActiveIndex
from matinee.index.factory import open_store
from matinee.index.item_vector import item_vector
from matinee.index.points import write_points
from matinee.index.protocols import Index
from matinee.index.qdrant.store import QdrantStore
from matinee.index.types import TEXT, Point, Scroll, StoredQuery, item_payload, tombstone
from matinee.items import Item
from matinee.models.embedder import Embedder
from matinee.recommend.options import RankingOptions
from matinee.recommend.queries import Example, ExampleQuery, Query, RankedItems, TextQuery
from matinee.recommend.ranking import LikedFacts
from matinee.recommend.recommender import Recommender
from matinee.settings.index import FactWeights, IndexSettings
from matinee.settings.tree import SearchSettings
from matinee.vectors import Vector

pytestmark = pytest.mark.asyncio(loop_scope="module")

POPULAR = ["Inception", "The Godfather", "Casablanca"]
EXTRA = [
    Item(id="copy-a", kind="film", title="The Long Night", year=1990, overview="A lighthouse keeper waits for a ship."),
    Item(id="copy-b", kind="film", title="The Long Night", year=2004, overview="A city without power waits for the morning."),
    Item(id="gone", kind="film", title="Vanished Completely", overview="A magician who made himself disappear."),
]


@pytest.fixture(scope="module")
def embedder(local_graph: Any) -> Embedder:
    model: Embedder = local_graph.embedder_replica().slot.model
    return model


@pytest.fixture(scope="module")
def films(local_graph: Any) -> dict[str, Item]:
    """Films by title: every fifth of the bundled ones, and those that the tests speak of."""
    named = {"Inception", "The Matrix", "Titanic", "Interstellar", "The Godfather", "Casablanca", "Toy Story", "Heat", "Psycho"}
    chosen = [film for i, film in enumerate(local_graph.demo_films()) if i % 5 == 0 or film.title in named]
    votes = {title: float(100 - place) for place, title in enumerate(POPULAR)}
    return {
        film.title: film.model_copy(update={"numbers": {"votes": votes[film.title]}}) if film.title in votes else film for film in chosen
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def index(local_graph: Any, films: dict[str, Item], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Index]:
    settings = local_graph.local_settings(tmp_path_factory.mktemp("home"))
    await local_graph.build_index(settings, [*films.values(), *EXTRA])
    active = ActiveIndex(open_store(settings))
    await active.refresh()
    await active.delete(EXTRA[2].uid("demo"))
    yield active.get()
    await active.close()


@pytest.fixture(scope="module")
def recommender(index: Index) -> Recommender:
    return Recommender(index, SearchSettings())


@pytest.fixture(scope="module")
def ask(recommender: Recommender) -> Any:
    async def one(query: Query) -> RankedItems:
        [answer] = await recommender.answer([query])
        if isinstance(answer, MatineeError):
            raise answer
        return answer

    return one


def liked(*names: str, **options: Any) -> ExampleQuery:
    return ExampleQuery(tuple(Example(title=name) for name in names), **options)


def cards(answer: RankedItems) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = orjson.loads(answer.items)
    assert len(found) == answer.count
    return found


def titles(answer: RankedItems) -> list[str]:
    return [card["item"]["title"] for card in cards(answer)]


async def vector_of(index: Index, item: Item) -> Vector:
    [hit] = await index.retrieve([item.uid("demo")], vectors=True)
    assert hit is not None
    assert hit.vector is not None
    return hit.vector


async def likeness(index: Index, one: Item, other: Item) -> float:
    """Cosine of text and facts together."""
    a, b = [item_vector(await vector_of(index, item), item.facts(), FactWeights()) for item in (one, other)]
    return float(a @ b)


async def test_one_like_is_plain_similarity_of_text_and_facts(ask: Any, index: Index, films: dict[str, Item]) -> None:
    answer = await ask(liked("The Matrix", k=5))
    assert answer.score_type == "cosine"
    for card in cards(answer):
        assert card["score"] == pytest.approx(await likeness(index, films["The Matrix"], films[card["item"]["title"]]), abs=1e-4)


async def test_a_cold_like_is_compared_by_its_facts_too(ask: Any, index: Index, films: dict[str, Item]) -> None:
    known, old = films["The Matrix"], films["The Matrix"].model_copy(update={"year": 1920, "language": "de", "id": None})
    vector = await vector_of(index, known)
    found = [cards(await ask(ExampleQuery((Example(facts=item.facts(), vector=vector),), k=1)))[0] for item in (known, old)]
    assert [card["item"]["title"] for card in found] == ["The Matrix", "The Matrix"]
    assert found[0]["score"] == pytest.approx(1, abs=1e-4)
    expected = item_vector(vector, known.facts(), FactWeights()) @ item_vector(vector, old.facts(), FactWeights())
    assert found[1]["score"] == pytest.approx(float(expected), abs=1e-4)
    assert found[1]["score"] < 0.9


async def test_the_scores_fall(ask: Any) -> None:
    for call in (liked("Heat"), liked("Heat", "Psycho"), liked("Heat", "Psycho", strategy="best"), ExampleQuery()):
        scores = [card["score"] for card in cards(await ask(call))]
        assert scores == sorted(scores, reverse=True)


async def test_text_and_likes_weigh_the_same(ask: Any, index: Index, films: dict[str, Item], embedder: Embedder) -> None:
    [text] = embedder.encode(["a heist in a casino"], kind="query")
    both = await ask(liked("Toy Story", text=text, k=5))
    middle = (await vector_of(index, films["Toy Story"]) + text) / 2
    middle /= np.linalg.norm(middle)
    best = cards(both)[0]
    assert best["score"] == pytest.approx(float(middle @ await vector_of(index, films[best["item"]["title"]])), abs=1e-4)


async def test_a_text_alone_is_a_dense_search(ask: Any, embedder: Embedder) -> None:
    [text] = embedder.encode(["a heist in a casino"], kind="query")
    assert titles(await ask(ExampleQuery(text=text))) == titles(await ask(TextQuery("a heist in a casino", text, "dense")))


async def test_a_dislike_pushes_its_like_down(ask: Any, films: dict[str, Item]) -> None:
    everything = len(films) + len(EXTRA)
    plain = titles(await ask(liked("Toy Story", k=everything)))
    away = titles(await ask(ExampleQuery((Example(title="Toy Story"),), (Example(title="The Godfather"),), k=everything)))
    like_it = [title for title in titles(await ask(liked("The Godfather", k=20))) if title in away]
    assert sum(map(away.index, like_it)) > sum(map(plain.index, like_it))


async def test_dislikes_alone_use_the_best_score_and_lead_away(ask: Any, index: Index, films: dict[str, Item]) -> None:
    answer = await ask(ExampleQuery(dislikes=(Example(title="Heat"),), k=20))
    assert answer.score_type == "best_score"
    vector = await vector_of(index, films["Heat"])
    away = [float(vector @ await vector_of(index, films[title])) for title in titles(answer) if title in films]
    near = [card["score"] for card in cards(await ask(liked("Heat", k=20)))]
    assert np.mean(away) < np.mean(near)
    assert all("reason" not in card for card in cards(answer))


async def test_the_best_strategy_keeps_both_sides_of_a_taste(ask: Any) -> None:
    answer = await ask(liked("Toy Story", "The Godfather", strategy="best", k=10))
    assert answer.score_type == "best_score"
    assert len({card["because"] for card in cards(answer)}) == 2


async def test_an_empty_call_gets_the_most_popular(ask: Any) -> None:
    answer = await ask(ExampleQuery(k=3))
    assert (titles(answer), answer.score_type, answer.likes) == (POPULAR, "popularity", ())
    assert all("reason" not in card for card in cards(answer))


@pytest.mark.parametrize("strategy", ["average", "best"])
@pytest.mark.parametrize("diversity", [0.0, 0.6])
async def test_no_example_is_ever_recommended(ask: Any, films: dict[str, Item], strategy: Any, diversity: float) -> None:
    everything = len(films) + len(EXTRA)
    call = ExampleQuery(
        (Example(title="Inception"), Example(id=films["Heat"].uid("demo"))),
        (Example(title="Titanic"),),
        strategy=strategy,
        k=everything,
        diversity=diversity,
    )
    answer = await ask(call)
    assert not {"Inception", "Heat", "Titanic", "Vanished Completely"} & set(titles(answer))
    assert answer.count == everything - 4


async def test_a_cold_item_is_an_example_and_is_not_recommended(ask: Any, embedder: Embedder, films: dict[str, Item]) -> None:
    cold = films["Interstellar"]
    [vector] = embedder.encode(["astronauts search a new home beyond a wormhole"])
    call = ExampleQuery((Example(cold.uid("demo"), facts={"title": "My Space Film", "year": 2014}, vector=vector),), k=3)
    answer = await ask(call)
    assert "Interstellar" not in titles(answer)
    assert cards(answer)[0]["reason"].startswith("If you enjoyed My Space Film, you might love")
    assert answer.likes == ({"id": cold.uid("demo"), "title": "My Space Film", "year": 2014},)


async def test_excluded_ids_do_not_come_back(ask: Any) -> None:
    first = cards(await ask(liked("Heat", k=3)))
    again = cards(await ask(liked("Heat", k=3, exclude=frozenset(card["id"] for card in first))))
    assert len(again) == 3
    assert not {card["id"] for card in first} & {card["id"] for card in again}


async def test_filters_hold_for_every_kind_of_call(ask: Any, embedder: Embedder) -> None:
    wanted = ItemFilter(genres=("Drama",), year={"gte": 1960, "lte": 1999})
    [text] = embedder.encode(["family"], kind="query")
    calls: list[Query] = [liked("Heat", filter=wanted), ExampleQuery(filter=wanted), ExampleQuery(text=text, filter=wanted)]
    calls += [liked("Heat", "Psycho", filter=wanted, diversity=0.5), ExampleQuery(dislikes=(Example(title="Heat"),), filter=wanted)]
    calls += [TextQuery("family", text, mode, filter=wanted) for mode in ("dense", "sparse", "hybrid")]
    for call in calls:
        found = cards(await ask(call))
        assert found
        assert all("Drama" in card["item"]["genres"] and 1960 <= card["item"]["year"] <= 1999 for card in found)


async def test_a_filter_that_nothing_passes_answers_with_nothing(ask: Any) -> None:
    answer = await ask(liked("Heat", filter=ItemFilter(kind=("opera",))))
    assert (answer.count, answer.items) == (0, b"[]")


async def test_diversity_keeps_the_best_and_changes_the_rest(ask: Any) -> None:
    plain, diverse = titles(await ask(liked("Heat", k=8))), titles(await ask(liked("Heat", k=8, diversity=0.8)))
    assert plain[0] == diverse[0]
    assert set(plain) != set(diverse)


async def test_the_reason_names_the_nearest_like_and_only_shared_facts(ask: Any, index: Index, films: dict[str, Item]) -> None:
    names = ["Toy Story", "The Godfather", "Interstellar"]
    vectors = {name: await vector_of(index, films[name]) for name in names}
    for card in cards(await ask(liked(*names, k=12))):
        facts = card["item"]
        mine = await vector_of(index, Item.model_validate(facts))
        nearest = max(names, key=lambda name: float(vectors[name] @ mine))
        assert card["because"] == films[nearest].uid("demo")
        assert card["reason"].startswith(f"If you enjoyed {nearest}, you might love {facts['title']} for its")
        shared = LikedFacts(films[nearest].facts()).shared_with(facts)
        said = card["reason"].split(" for its", 1)[1].casefold()
        for genre in {g for film in films.values() for g in film.genres} - set(shared.genres):
            assert f" {genre.casefold()} " not in said.replace("science fiction", "" if genre == "Fiction" else "science fiction")
        kept = {name for group in shared.people.values() for name in group}
        assert not [
            name for name in [*films[nearest].names(), *Item.model_validate(facts).names()] if name not in kept and name.casefold() in said
        ]


async def test_reasons_are_in_the_language_of_the_settings(index: Index) -> None:
    german = Recommender(index, SearchSettings(), reasons_in="german")
    [answer] = await german.answer([ExampleQuery((Example(title="Heat"),))])
    assert isinstance(answer, RankedItems)
    assert all(card["reason"].startswith("Wenn dir Heat gefallen hat, könnte dir auch") for card in cards(answer))


async def test_without_explain_there_are_no_reasons(ask: Any) -> None:
    assert all(set(card) == {"id", "score", "item"} for card in cards(await ask(liked("Heat", "Psycho", explain=False))))


async def test_likes_say_what_titles_were_taken_for(ask: Any, films: dict[str, Item]) -> None:
    answer = await ask(liked("the matrx", "godfather"))
    assert [like["title"] for like in answer.likes] == ["The Matrix", "The Godfather"]
    assert answer.likes[0]["id"] == films["The Matrix"].uid("demo")


@pytest.mark.parametrize(
    ("example", "kind", "said"),
    [
        (Example(title="The Long Night"), AmbiguousTitleError, r"The Long Night \(1990\).*: add the year"),
        (Example(title="Zzyzx Qqqq"), NotFoundError, "no item is titled"),
        (Example(title="Vanished Completely"), NotFoundError, "no item is titled"),
        (Example(id=EXTRA[2].uid("demo")), NotFoundError, "no item has the id"),
        (Example(id="00000000-0000-0000-0000-000000000000"), NotFoundError, "no item has the id"),
        (Example(id="no uuid"), NotFoundError, "no item has the id"),
        (Example(title=" "), NotFoundError, "no item is titled"),
        (Example(title=""), NotFoundError, "neither an id nor a title"),
        (Example(), NotFoundError, "neither an id nor a title"),
    ],
)
async def test_an_example_that_stands_for_nothing_is_explained(ask: Any, example: Example, kind: type[Exception], said: str) -> None:
    for call in (ExampleQuery((example,)), ExampleQuery(dislikes=(Example(title="Heat"), example))):
        with pytest.raises(kind, match=said):
            await ask(call)


async def test_a_year_tells_titles_apart(ask: Any) -> None:
    assert (await ask(liked("The Long Night (2004)"))).likes[0]["id"] == EXTRA[1].uid("demo")


async def test_search_modes_have_their_own_scores(ask: Any, embedder: Embedder) -> None:
    [text] = embedder.encode(["a shark attacks"], kind="query")
    types = {mode: (await ask(TextQuery("a shark attacks", text, mode))).score_type for mode in ("dense", "sparse", "hybrid")}
    assert types == {"dense": "cosine", "sparse": "bm25", "hybrid": "linear"}
    assert (await ask(TextQuery("the of and", text, "hybrid"))).score_type == "cosine"
    assert (await ask(TextQuery("!!!", None, "sparse"))).count == 0


async def test_a_mixed_batch_equals_the_single_calls_and_a_bad_one_spoils_nothing(
    ask: Any, recommender: Recommender, embedder: Embedder
) -> None:
    [text] = embedder.encode(["a heist"], kind="query")
    bad = liked("Zzyzx Qqqq")
    good: list[Query] = [
        liked("Heat"),
        liked("Heat", "Psycho", diversity=0.4),
        ExampleQuery(),
        ExampleQuery(dislikes=(Example(title="Titanic"),)),
        ExampleQuery(text=text, k=3),
        *(TextQuery("a heist", text, mode) for mode in ("dense", "sparse", "hybrid")),
    ]
    mixed = [bad, *good[:4], bad, liked("The Long Night"), *good[4:], good[0]]
    answers = await recommender.answer(mixed)
    assert [isinstance(answer, MatineeError) for answer in answers] == [index in (0, 5, 6) for index in range(len(mixed))]
    singles = [await ask(call) for call in [*good, good[0]]]
    assert [answer for answer in answers if isinstance(answer, RankedItems)] == singles


async def test_no_calls_get_no_answers(recommender: Recommender) -> None:
    assert await recommender.answer([]) == []


async def test_ranking_is_offloaded_once_a_batch(index: Index) -> None:
    offloaded = 0

    async def offload(work: Any) -> list[RankedItems]:
        nonlocal offloaded
        offloaded += 1
        done: list[RankedItems] = work()
        return done

    recommender = Recommender(index, SearchSettings(), offload=offload)
    await recommender.answer([liked("Heat"), ExampleQuery(), liked("Psycho")])
    assert offloaded == 1


# on a server


class Watched:
    """An index that keeps what it is asked, and can lack the searches by id."""

    def __init__(self, index: Index, *, by_id: bool = True) -> None:
        self._index = index
        self.searches_by_id = by_id
        self.calls: list[object] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    async def together(self, work: Any, **_: Any) -> Any:
        return await work()

    async def search(self, searches: Any) -> Any:
        self.calls.append([type(search.query) for search in searches])
        return await self._index.search(searches)

    async def retrieve(self, ids: Any, *, vectors: bool = False) -> Any:
        self.calls.append("vectors" if vectors else "items")
        return await self._index.retrieve(ids, vectors=vectors)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(index: Index, films: dict[str, Item]) -> AsyncIterator[Index]:
    """Some of the films in the client's in-memory mode, which searches by id as a server does."""
    client = AsyncQdrantClient(":memory:")
    opened = await QdrantStore(IndexSettings(), "demo", client=client).create(index.manifest)
    await write_points(opened, await index.points([film.uid("demo") for film in [*films.values()][:60]]))
    await opened.upsert([tombstone(EXTRA[2].uid("demo"), revision=1)])
    yield opened
    await client.close()


def by_id(id: str | None, **options: Any) -> ExampleQuery:
    return ExampleQuery((Example(id=id),), **options)


async def answers_of(index: Any, *queries: Query) -> list[Any]:
    return await Recommender(index, SearchSettings()).answer(queries)


@pytest.mark.parametrize("options", [{}, {"explain": True, "k": 5}, {"diversity": 0.4}, {"filter": ItemFilter(genres=("Drama",))}])
async def test_similar_by_id_is_one_query_on_a_server(server: Index, films: dict[str, Item], options: dict[str, Any]) -> None:
    film = [*films.values()][7]
    at_once, step_by_step = Watched(server), Watched(server, by_id=False)
    for id in (film.id, film.uid("demo")):
        at_once.calls.clear()
        [found] = await answers_of(at_once, by_id(id, **options))
        [expected] = await answers_of(step_by_step, by_id(id, **options))
        assert sorted(map(str, at_once.calls)) == sorted([str([StoredQuery]), "items"]), "no vector was read"
        assert (found.likes, found.score_type, found.count) == (expected.likes, expected.score_type, expected.count)
        for one, other in zip(cards(found), cards(expected), strict=True):
            assert one.pop("score") == pytest.approx(other.pop("score"), abs=1e-5)
            assert one == other


async def test_of_own_ids_that_are_uuids_only_the_first_costs_a_refused_query(server: Index) -> None:
    [point] = (await server.scroll(Scroll(limit=1, vectors=True)))[0]
    books = [Item(id=str(uuid5(NAMESPACE_URL, title)), title=title) for title in ("Emma", "Persuasion")]
    assert point.vector is not None
    points = [Point(book.uid("demo"), item_payload(book, origin="file", revision=0), {TEXT: point.vector}) for book in books]
    await server.upsert(points)
    try:
        watched = Watched(server)
        recommender = Recommender(watched, SearchSettings())
        for id, calls in ((books[0].id, 4), (books[1].id, 2), (books[1].uid("demo"), 4), (books[0].uid("demo"), 2)):
            watched.calls.clear()
            [answer] = await recommender.answer([by_id(id, k=1)])
            assert isinstance(answer, RankedItems)
            assert answer.likes[0]["title"] in ("Emma", "Persuasion")
            assert len(watched.calls) == calls
    finally:
        await server.upsert([tombstone(point.id, revision=3) for point in points])


async def test_an_id_that_is_not_there_fails_alone_on_a_server(server: Index, films: dict[str, Item]) -> None:
    first, second = [*films.values()][:2]
    asked = [by_id(first.id), by_id("nothing"), by_id(EXTRA[2].id), by_id(str(EXTRA[2].uid("demo"))), ExampleQuery(), by_id(second.id)]
    found = await answers_of(Watched(server), *asked)
    expected = await answers_of(Watched(server, by_id=False), *asked)
    assert [type(one) for one in found] == [RankedItems, NotFoundError, NotFoundError, NotFoundError, RankedItems, RankedItems]
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, RankedItems):
            assert [card["id"] for card in cards(one)] == [card["id"] for card in cards(other)]
        else:
            assert str(one) == str(other)


async def test_an_item_that_is_deleted_while_its_page_is_read_is_left_out(server: Index, films: dict[str, Item]) -> None:
    doomed = [*films.values()][30]
    [point] = await server.points([doomed.uid("demo")])

    class Deleting(Watched):
        async def search(self, searches: Any) -> Any:
            found = await super().search(searches)
            await server.upsert([tombstone(point.id, revision=2)])
            return found

    query = ExampleQuery(k=60, options=RankingOptions(offset=0))
    try:
        [before], [after] = [await answers_of(kind(server), query) for kind in (Watched, Deleting)]
    finally:
        await server.upsert([point])
    assert [card["id"] for card in cards(before) if card["id"] != point.id] == [card["id"] for card in cards(after)]
    assert before.count == after.count + 1
