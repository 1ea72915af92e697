"""`matinee.recommend.offline`: the same requests and answers as the HTTP API, without a server; and a rollback that loses nothing."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from matinee.client import calls
from matinee.client.http import Client
from matinee.errors import AmbiguousTitleError, FingerprintError, IndexAbsentError, IndexLockedError, NotFoundError
from matinee.filters import ItemFilter
from matinee.index.active import ActiveIndex, new_revision
from matinee.index.factory import open_store
from matinee.index.points import PointMaker
from matinee.items import Item
from matinee.models.embedder import Embedder
from matinee.recommend.offline import OfflineCatalogue
from matinee.settings.tree import Settings

NONE: dict[str, Any] = {"k": 5, "filter": ItemFilter(), "diversity": 0.0}


@pytest.fixture(scope="module")
def films(local_graph: Any) -> list[Item]:
    titles = {"Inception", "The Matrix", "Titanic", "Heat", "Beauty and the Beast"}
    return [film for i, film in enumerate(local_graph.demo_films()) if i % 20 == 0 or film.title in titles]


@pytest.fixture(scope="module")
def settings(local_graph: Any, films: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    made: Settings = local_graph.local_settings(tmp_path_factory.mktemp("home"))
    asyncio.run(local_graph.build_index(made, films))
    return made


@pytest.fixture(scope="module")
def served(local_graph: Any, films: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("served")
    with local_graph.serve_app(lambda: local_graph.build_local_graph(home, films=films)) as url:
        yield Client(url)


def same(local: Any, answer: Any) -> None:
    assert answer.pop("request_id")
    scores = [[card.pop("score") for card in side["items"]] for side in (local, answer)]
    assert local == answer
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid", None])
def test_a_search_answers_as_the_api_does(settings: Settings, served: Client, mode: Any) -> None:
    local = OfflineCatalogue(settings).search(" a dream\nwithin a dream ", mode=mode, **NONE)
    same(local, served.send(calls.search({"text": " a dream\nwithin a dream ", "mode": mode, "k": 5})))


def test_a_recommendation_answers_as_the_api_does(settings: Settings, served: Client) -> None:
    filter = ItemFilter(year={"gte": 1950})
    local = OfflineCatalogue(settings).recommend(["inceptoin"], ["Titanic"], text="a heist", k=5, filter=filter, diversity=0.3)
    body = {"likes": ["inceptoin"], "dislikes": ["Titanic"], "text": "a heist", "k": 5, "diversity": 0.3}
    same(local, served.send(calls.recommend(body | {"filter": filter.body})))


def test_likes_may_be_ids(settings: Settings, films: list[Item]) -> None:
    [heat] = [film for film in films if film.title == "Heat"]
    for id in (heat.uid("demo"), heat.uid("demo").upper()):
        assert OfflineCatalogue(settings).recommend([id], [], text=None, **NONE)["likes"][0]["title"] == "Heat"
    with pytest.raises(NotFoundError, match="no item has the id"):
        OfflineCatalogue(settings).recommend(["00000000-0000-0000-0000-000000000000"], [], text=None, **NONE)


def test_titles_that_stand_for_none_or_several_are_explained(settings: Settings) -> None:
    with pytest.raises(NotFoundError, match="no item is titled"):
        OfflineCatalogue(settings).recommend(["Zzyzx Qqqq"], [], text=None, **NONE)
    with pytest.raises(AmbiguousTitleError) as several:
        OfflineCatalogue(settings).recommend(["Beauty and the Beast"], [], text=None, **NONE)
    assert len(several.value.candidates) == 2


def test_nothing_at_all_is_answered_with_the_popular(settings: Settings) -> None:
    assert OfflineCatalogue(settings).recommend([], [], text=None, **NONE)["score_type"] == "popularity"


@pytest.mark.parametrize(
    "ask",
    [
        lambda local: local.search("x", mode="sparse", **NONE),
        lambda local: local.recommend(["Heat"], [], text=None, **NONE),
        lambda local: local.describe("Heat"),
        lambda local: local.rollback(),
    ],
    ids=["search", "recommend", "describe", "rollback"],
)
def test_without_an_index_the_next_step_is_named(local_graph: Any, tmp_path: Path, ask: Callable[[OfflineCatalogue], Any]) -> None:
    with pytest.raises(IndexAbsentError):
        ask(OfflineCatalogue(local_graph.local_settings(tmp_path)))


def test_info_and_versions_without_an_index_are_empty(local_graph: Any, tmp_path: Path) -> None:
    local = OfflineCatalogue(local_graph.local_settings(tmp_path))
    assert local.info() == {"server": None, "home": str(tmp_path), "catalogue": "demo", "index": None}
    assert local.versions() == {"current": None, "previous": None, "versions": []}


def test_info_and_versions_say_what_is_there(settings: Settings, films: list[Item]) -> None:
    info, versions = OfflineCatalogue(settings).info(), OfflineCatalogue(settings).versions()
    assert (info["index"]["count"], info["index"]["previous"]) == (len(films), None)
    assert versions["current"] == info["index"]["version"] == versions["versions"][0]["version"]


def test_an_index_of_another_encoder_is_refused_for_texts_and_used_for_titles(settings: Settings) -> None:
    other = settings.model_copy(update={"embedder": settings.embedder.model_copy(update={"max_tokens": 64})})
    with pytest.raises(FingerprintError, match="matinee ingest"):
        OfflineCatalogue(other).search("x", mode="dense", **NONE)
    assert OfflineCatalogue(other).recommend(["Heat"], [], text=None, **NONE)["items"]


def test_an_index_that_a_process_holds_is_locked_and_then_free(settings: Settings) -> None:
    async def hold() -> None:
        active = ActiveIndex(open_store(settings))
        await active.refresh()
        try:
            with pytest.raises(IndexLockedError, match="another process"):
                await asyncio.to_thread(lambda: OfflineCatalogue(settings).search("x", mode="sparse", **NONE))
        finally:
            await active.close()

    asyncio.run(hold())
    assert OfflineCatalogue(settings).search("love", mode="sparse", **NONE)["items"]


@pytest.fixture
def twice(local_graph: Any, films: list[Item], tmp_path: Path) -> Settings:
    """A catalogue of two versions."""
    settings: Settings = local_graph.local_settings(tmp_path)
    for _ in range(2):
        asyncio.run(local_graph.build_index(settings, films[:4]))
    return settings


def with_live(settings: Settings, work: Callable[[ActiveIndex], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        active = ActiveIndex(open_store(settings))
        try:
            await active.refresh()
            return await work(active)
        finally:
            await active.close()

    return asyncio.run(run())


def test_a_rollback_goes_back_and_forth(twice: Settings) -> None:
    local = OfflineCatalogue(twice)
    before = local.versions()
    assert local.rollback()["version"] == before["previous"]
    assert local.versions() == before | {"current": before["previous"], "previous": before["current"]}
    assert local.rollback()["version"] == before["current"]


def test_a_rollback_without_a_server_keeps_what_the_api_wrote(twice: Settings, local_graph: Any, films: list[Item]) -> None:
    embedder: Embedder = local_graph.embedder_replica().slot.model
    mine = Item(id="mine", kind="film", title="Written By Hand", overview="A film that only the API knows.")

    async def write(active: ActiveIndex) -> None:
        points = PointMaker(embedder, "raw")([mine], [mine.uid("demo")], origin="api", revisions=[new_revision()])
        await active.upsert(points, fingerprint=embedder.fingerprint, recipe="raw")
        await active.delete(films[0].uid("demo"))

    async def read(active: ActiveIndex) -> list[Any]:
        return await active.get().retrieve([mine.uid("demo"), films[0].uid("demo")], vectors=True)

    with_live(twice, write)
    OfflineCatalogue(twice).rollback()
    written, deleted = with_live(twice, read)
    assert written.vector is not None
    assert deleted.payload["deleted"] is True


def test_a_rollback_beside_a_process_that_holds_the_index_is_left_to_it(twice: Settings) -> None:
    before = OfflineCatalogue(twice).versions()

    async def roll(active: ActiveIndex) -> None:
        await asyncio.to_thread(lambda: OfflineCatalogue(twice).rollback())
        assert active.manifest is not None
        assert active.manifest.version == before["current"]
        assert await active.refresh() is True
        assert active.manifest.version == before["previous"]

    with_live(twice, roll)
