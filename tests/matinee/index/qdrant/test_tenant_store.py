"""Catalogues that share a collection: no item, attribute or version of one is another's. What any store does: `any_store`."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from matinee.filters import ItemFilter
from matinee.filters.attributes import Attribute
from matinee.filters.conditions import All, AnyOf, Equal, HasId, Not, Some
from matinee.index.build import new_manifest
from matinee.index.imports import new_job
from matinee.index.qdrant.imports import SHARED_IMPORTS
from matinee.index.qdrant.registry import NAME, QdrantRegistry
from matinee.index.qdrant.tenant import Tenant, collection_name
from matinee.index.qdrant.tenant_store import TenantStore
from matinee.index.registry import CatalogueRecord, new_record
from matinee.index.types import DenseQuery, Manifest, Point, Scroll, Search, item_payload
from matinee.items import Item
from matinee.settings.index import CatalogueSettings, FactWeights, IndexSettings

ATTRIBUTES = {"colour": Attribute(type="keyword", source="extra.colour", facet=True)}
NO_FACTS = FactWeights(year=0, votes=0, genres=0, language=0)
SMALL = IndexSettings(catalogues=CatalogueSettings(share_below=3))


@pytest.fixture
async def client() -> AsyncIterator[AsyncQdrantClient]:
    client = AsyncQdrantClient(":memory:")
    yield client
    await client.close()


def manifest(catalogue: str, version: str, fingerprint: str = "f" * 64, count: int = 0) -> Manifest:
    made = new_manifest(catalogue, fingerprint, 4, "raw", NO_FACTS, "test", ATTRIBUTES)
    return made.model_copy(update={"version": version, "count": count})


async def built(store: TenantStore, made: Manifest, *colours: str) -> None:
    """A version of one item a colour, made current. All catalogues have items of the same ids."""
    index = await store.create(made)
    points = []
    for n, colour in enumerate(colours):
        item = Item(id=str(n), title=f"{made.catalogue} {n}", extra={"colour": colour})
        uid = f"00000000-0000-0000-0000-{n:012}"
        points.append(Point(uid, item_payload(item, origin="file", revision=n), {"text": np.eye(4, dtype=np.float32)[n % 4]}))
    await index.upsert(points)
    await store.finish(made.model_copy(update={"count": len(colours)}))
    await store.switch(made.version)


async def titles(store: TenantStore, **filter: Any) -> list[str]:
    current = await store.current()
    assert current is not None
    index = await store.open(current.version)
    page, _ = await index.scroll(Scroll(limit=100, filter=ItemFilter(**filter)))
    assert await index.count(ItemFilter(**filter)) == len(page)
    [near] = await index.search([Search(DenseQuery(np.eye(4, dtype=np.float32)[0]), 10, ItemFilter(**filter))])
    assert {hit.id for hit in near} == {hit.id for hit in page}
    return sorted(hit.payload["title"] for hit in page)


async def test_catalogues_in_one_collection_do_not_see_each_other(client: AsyncQdrantClient) -> None:
    shop, pets = (TenantStore(SMALL, name, client=client) for name in ("shop", "my-pets_2"))
    await built(shop, manifest("shop", "v1"), "red", "blue")
    await built(pets, manifest("my-pets_2", "v1"), "red")
    names = [entry.name for entry in (await client.get_collections()).collections]
    assert sorted(names) == sorted([NAME, collection_name(manifest("shop", "v1"))])
    assert await titles(shop) == ["shop 0", "shop 1"]
    assert await titles(pets) == ["my-pets_2 0"]
    assert await titles(shop, colour=["red"]) == ["shop 0"]
    assert await titles(shop, **{"not": {"colour": ["red"]}}) == ["shop 1"]
    assert await titles(pets, colour=["blue"]) == []
    index = await pets.open("v1")
    assert await index.facets("colour") == [("red", 1)]
    [hit] = await index.retrieve(["00000000-0000-0000-0000-000000000000"])
    assert hit is not None
    assert (hit.payload["item"]["title"], hit.payload["attributes"]) == ("my-pets_2 0", {"colour": "red"})
    assert "tenant" not in hit.payload
    assert await index.max_revision() == 0
    [point] = await index.points([hit.id])
    await index.upsert([point])
    assert await index.count() == 1


@pytest.mark.parametrize("many", [15, pytest.param(100, marks=pytest.mark.full)])
async def test_many_small_catalogues_are_one_collection_under_one_fingerprint(client: AsyncQdrantClient, many: int) -> None:
    stores = {name: TenantStore(IndexSettings(), name, client=client) for name in (f"shop-{n}" for n in range(many))}
    for n, (name, store) in enumerate(stores.items()):
        await built(store, manifest(name, "v1"), "red", f"colour {n}")
        assert await store.imports().save(new_job("body", n))
    shared = collection_name(manifest("any", "v1"))
    assert {entry.name for entry in (await client.get_collections()).collections} == {NAME, SHARED_IMPORTS, shared}
    for n, (name, store) in enumerate(stores.items()):
        assert await titles(store) == [f"{name} 0", f"{name} 1"]
        assert await titles(store, colour=[f"colour {n}"]) == [f"{name} 1"]
        assert await titles(store, colour=[f"colour {n + 1}"]) == []
        assert [job.asked for job in await store.imports().jobs()] == [n]
    await stores["shop-7"].destroy()
    assert await stores["shop-7"].versions() == []
    assert [(await client.count(name)).count for name in (shared, SHARED_IMPORTS)] == [2 * many - 2, many - 1]
    assert await titles(stores["shop-8"]) == ["shop-8 0", "shop-8 1"]


async def test_each_catalogue_moves_on_by_itself(client: AsyncQdrantClient) -> None:
    shop, pets = (TenantStore(SMALL, name, client=client) for name in ("shop", "pets"))
    await built(shop, manifest("shop", "v1"), "red")
    await built(pets, manifest("pets", "v1"), "red")
    await built(shop, manifest("shop", "v2"), "blue", "green")
    await built(shop, manifest("shop", "v3"), "grey")
    assert (await titles(shop, colour=["grey"]), await titles(pets)) == (["shop 0"], ["pets 0"])
    assert [made.version for made in await shop.versions()] == ["v3", "v2", "v1"]
    assert (await shop.rollback()).version == "v2"
    assert await titles(shop) == ["shop 0", "shop 1"]
    assert await shop.prune(1) == ["v1"]
    collection = collection_name(manifest("shop", "v1"))
    assert (await client.count(collection)).count == 4, "v2 and v3 of the shop, v1 of the pets"
    await shop.destroy()
    assert (await client.count(collection)).count == 1
    assert await shop.versions() == []
    assert await titles(pets) == ["pets 0"]


async def test_a_large_version_and_another_encoder_have_collections_of_their_own(client: AsyncQdrantClient) -> None:
    shop = TenantStore(SMALL, "shop", client=client)
    await built(shop, manifest("shop", "v1"), "red")
    await built(shop, manifest("shop", "v2", fingerprint="e" * 64), "red", "blue", "grey")
    await built(shop, manifest("shop", "v3"), "red", "blue", "grey")
    names = {entry.name for entry in (await client.get_collections()).collections}
    shared = {collection_name(manifest("shop", version, fingerprint)) for version, fingerprint in (("v1", "f" * 64), ("v2", "e" * 64))}
    assert names == {NAME, "shop.v3", *shared}, "its version before was large, so this one is"
    assert len(shared) == 2
    assert await titles(shop, colour=["blue"]) == ["shop 1"]
    assert await shop.prune(2) == ["v1"]
    assert (await shop.rollback()).version == "v2"
    await built(shop, manifest("shop", "v4", count=3), "red")
    assert "shop.v4" in {entry.name for entry in (await client.get_collections()).collections}
    await shop.destroy()
    left = {entry.name for entry in (await client.get_collections()).collections}
    assert left == {NAME, *shared}
    assert [(await client.count(name)).count for name in shared] == [0, 0]


async def test_the_registry_does_not_take_versions_for_catalogues(client: AsyncQdrantClient) -> None:
    registry = QdrantRegistry(SMALL, client=client)
    record = new_record(CatalogueRecord(name="shop"), shared=True)
    await registry.add(record, 9)
    await built(TenantStore(SMALL, "shop", client=client), manifest("shop", "v1"), "red")
    assert await registry.records() == {"shop": record}


async def test_of_changes_at_one_moment_none_is_lost(client: AsyncQdrantClient) -> None:
    shop = TenantStore(SMALL, "shop", client=client)
    await built(shop, manifest("shop", "v1"), "red")
    before = await shop._state()
    changed = before.model_copy(update={"changes": before.changes + 1})
    assert await shop._replace(before, changed)
    assert not await shop._replace(before, changed), "it is no longer the state that was read"


def test_names_never_collide_and_conditions_name_the_catalogue() -> None:
    names = ["a-b", "a_b", "a_db", "a__b", "a-_b", "a_-b", "ab"]
    assert len({Tenant(name, "v").prefix for name in names}) == len(names)
    tenant = Tenant("a", "v")
    whose = (Equal("tenant", "a"), Equal("version", "v"))
    assert tenant.condition(None) == All(whose)
    given = Some((Not(AnyOf("attributes.colour", ("red",))), HasId(("x",)), All((Equal("deleted", True),))))
    renamed = Some((Not(AnyOf("in_a.attributes.colour", ("red",))), HasId((tenant.id("x"),)), All((Equal("deleted", True),))))
    assert tenant.condition(given) == All((*whose, renamed))
    assert Tenant("a", "w").id("x") != tenant.id("x")
