"""`matinee.index.active`: a switch to a version of another encoder, another recipe, or other facts."""

from collections.abc import Sequence

import pytest

from matinee.errors import FingerprintError, IndexUnavailableError
from matinee.index.active import ActiveIndex
from matinee.index.factory import open_store
from matinee.index.points import PointMaker
from matinee.index.protocols import IndexStore
from matinee.index.types import Scroll
from matinee.items import Item
from matinee.settings.index import FactWeights
from matinee.settings.tree import Settings
from tests.matinee.active_versions import build, film, get, nearest, put
from tests.title_lookup import resolve

NO_FACTS = FactWeights(year=0, votes=0, genres=0, language=0)


@pytest.fixture(scope="module")
def described(maker: PointMaker) -> PointMaker:
    def describe(items: Sequence[Item]) -> list[str]:
        return [f"{item.title}, in other words." for item in items]

    return PointMaker(maker.embedder, "both", describe=describe)


async def pending(active: ActiveIndex) -> set[str]:
    return {hit.id for hit in (await active.get().scroll(Scroll(limit=10, pending=True)))[0]}


async def test_under_another_recipe_they_wait_for_it(
    active: ActiveIndex, store: IndexStore, maker: PointMaker, described: PointMaker, films: list[Item]
) -> None:
    raw = film("raw")
    await put(active, maker, raw)
    await build(store, described, films, active)
    await put(active, maker, film("late"))
    await active.refresh()
    assert (await pending(active)) == {film("late").uid("demo")}, "the build described the other one itself"
    await put(active, described, film("done"))
    await put(active, maker, film("put"))
    assert (await pending(active)) == {film(name).uid("demo") for name in ("late", "put")}
    assert (await get(active, film("put"))).vector is not None
    await store.rollback()
    await active.refresh()
    assert (await pending(active)) == {film(name).uid("demo") for name in ("done", "put")}, "the other was written to both"
    assert await nearest(active, maker, "Film put. What happened to put.") == "Film put"


@pytest.mark.parametrize("weights", [(FactWeights(), NO_FACTS), (NO_FACTS, FactWeights())])
async def test_a_rollback_between_facts_and_none(
    any_store: IndexStore, maker: PointMaker, films: list[Item], weights: tuple[FactWeights, FactWeights]
) -> None:
    makers = [PointMaker(maker.embedder, "raw", facts=facts) for facts in weights]
    await build(any_store, makers[0], films)
    active = ActiveIndex(any_store)
    await active.refresh()
    await build(any_store, makers[1], films, active)
    await put(active, makers[0], film("between"))
    await active.refresh()
    await put(active, makers[1], film("since"))
    await any_store.rollback()
    assert await active.refresh() is True
    for name in ("between", "since"):
        [point] = await active.get().points([film(name).uid("demo")])
        assert point.dense.keys() == active.get().manifest.dimensions.keys()
        assert point.payload["pending"] is False
    await active.close()


async def test_the_draining_version_answers_for_its_encoder(
    active: ActiveIndex, store: IndexStore, maker: PointMaker, other: PointMaker, films: list[Item]
) -> None:
    await build(store, other, films, active)
    await active.refresh()
    assert active.get() is active.get(other.embedder.fingerprint)
    assert active.get(maker.embedder.fingerprint) is not active.get()
    text = f"{films[3].title}. {films[3].overview}"
    assert await nearest(active, maker, text) == await nearest(active, other, text) == films[3].title
    with pytest.raises(FingerprintError, match="matinee ingest"):
        active.get("0" * 64)
    drained = active.get(maker.embedder.fingerprint)
    await build(store, other, films, active)
    await active.refresh()
    with pytest.raises(FingerprintError):
        active.get(maker.embedder.fingerprint)
    with pytest.raises(IndexUnavailableError, match="was closed"):
        await drained.count()


async def test_under_another_encoder_they_are_found_by_title_and_wait_for_their_vector(
    active: ActiveIndex, store: IndexStore, maker: PointMaker, other: PointMaker, films: list[Item]
) -> None:
    await put(active, maker, film("early"))
    await build(store, other, films, active)
    await put(active, maker, film("late"))
    await active.delete(films[0].uid("demo"))
    await active.refresh()
    late = await get(active, film("late"))
    assert (late.vector, late.payload["pending"]) == (None, True)
    assert (await resolve(active.get(), "Film late")).id == film("late").uid("demo")
    early = await get(active, film("early"))
    assert (early.vector is not None, early.payload["pending"]) == (True, False)
    gone = await get(active, films[0])
    assert (gone.payload["deleted"], gone.payload["pending"]) == (True, False)
    page, _ = await active.get().scroll(Scroll(limit=10, pending=True))
    assert [hit.id for hit in page] == [film("late").uid("demo")]


async def test_a_rollback_to_another_encoder_keeps_the_vectors_that_are_there(
    active: ActiveIndex, store: IndexStore, maker: PointMaker, other: PointMaker, films: list[Item]
) -> None:
    await put(active, maker, film("before"))
    await build(store, other, films, active)
    await active.refresh()
    await put(active, other, film("since"))
    await store.rollback()
    await active.refresh()
    before, since = await get(active, film("before")), await get(active, film("since"))
    assert (before.vector is not None, before.payload["pending"]) == (True, False)
    assert (since.vector, since.payload["pending"]) == (None, True)


async def test_a_write_needs_the_encoder_of_the_index(active: ActiveIndex, other: PointMaker) -> None:
    with pytest.raises(FingerprintError, match="send them again"):
        await put(active, other, film("a"))
    assert await get(active, film("a")) is None


async def test_during_a_roll_over_writes_reach_the_queries_of_both_encoders(
    active: ActiveIndex, store: IndexStore, maker: PointMaker, other: PointMaker, films: list[Item]
) -> None:
    await build(store, other, films, active)
    await active.refresh()
    by_old, by_new = film("old"), film("new")
    await put(active, maker, by_old)
    await put(active, other, by_new)
    assert await nearest(active, maker, "Film old. What happened to old.") == "Film old"
    assert await nearest(active, other, "Film new. What happened to new.") == "Film new"
    # Each waits for its vector where the other encoder's queries go, and is found there by its title.
    for maker_of, item in ((other, by_old), (maker, by_new)):
        [hit] = await active.get(maker_of.embedder.fingerprint).retrieve([item.uid("demo")], vectors=True)
        assert (hit.vector, hit.payload["pending"]) == (None, True)
        assert (await resolve(active.get(maker_of.embedder.fingerprint), item.title)).id == item.uid("demo")
    await active.delete(films[0].uid("demo"))
    for maker_of in (maker, other):
        assert await nearest(active, maker_of, films[0].overview) != films[0].title
    # The background job is for the current version: it waits until its own encoder serves.
    with pytest.raises(FingerprintError):
        await put(active, maker, by_old, if_revision={by_old.uid("demo"): (await get(active, by_old)).payload["revision"]})
    revision = (await get(active, by_old)).payload["revision"]
    assert await put(active, other, by_old, if_revision={by_old.uid("demo"): revision}) == 1
    assert await nearest(active, other, "Film old. What happened to old.") == "Film old"


async def test_a_server_that_restarts_in_a_roll_over_still_answers_the_encoder_before(
    active: ActiveIndex, store: IndexStore, settings: Settings, maker: PointMaker, other: PointMaker, films: list[Item]
) -> None:
    await build(store, other, films, active)
    await active.close()
    again = ActiveIndex(open_store(settings))
    await again.refresh(recover=True)
    for maker_of in (maker, other):
        assert await nearest(again, maker_of, films[0].overview) == films[0].title
    await again.close()
    # The same encoder again: the version before would never be asked.
    await build(store, other, films)
    await again.refresh(recover=True)
    with pytest.raises(FingerprintError):
        again.get(maker.embedder.fingerprint)
    await again.close()
