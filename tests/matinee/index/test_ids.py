"""Ids: the catalogue's own first, the index' second, whatever an own id looks like."""

from pathlib import Path

import pytest

from matinee.index.edge.store import EdgeStore
from matinee.index.ids import as_uuid, index_ids, locate
from matinee.index.types import TEXT, Manifest, Point, tombstone
from matinee.items import item_uid

UUID = "12345678-1234-5678-1234-567812345678"
SPELLINGS = (UUID, f"{{{UUID}}}", UUID.replace("-", ""), f"urn:uuid:{UUID}", UUID.upper())


@pytest.mark.parametrize("id", SPELLINGS)
def test_uuids_in_any_spelling_are_one_index_id(id: str) -> None:
    assert as_uuid(id) == UUID
    assert index_ids(id, "films") == (item_uid("films", id), UUID)


def test_what_is_no_uuid_is_the_catalogues_own() -> None:
    for id in ("tt1", "/works/OL1W", "a b%20", "Amélie", "日本", "1234"):
        assert index_ids(id, "films") == (item_uid("films", id),)
    assert index_ids("tt1", "films") != index_ids("tt1", "books")


async def test_an_own_id_comes_before_the_index_id_that_it_looks_like(tmp_path: Path) -> None:
    store = EdgeStore(tmp_path, "films")
    index = await store.create(Manifest(version="v1", catalogue="films", fingerprint="f" * 64, recipe="raw", dimensions={TEXT: 4}))
    own, other = item_uid("films", UUID), item_uid("films", "tt1")
    try:
        await index.upsert([Point(UUID, {"title": "by index id", "revision": 0}), Point(other, {"title": "by own id", "revision": 0})])
        found = await locate(index, [UUID.upper(), "tt1", other, "nobody"])
        assert {id: hit and hit.id for id, hit in found.items()} == {UUID.upper(): UUID, "tt1": other, other: other, "nobody": None}
        await index.upsert([Point(own, {"title": "looks like a UUID", "revision": 0})])
        assert (await locate(index, [UUID]))[UUID].id == own  # type: ignore[union-attr]
        # A deleted item hides no stored one; alone it is found as what it is.
        await index.upsert([tombstone(own, revision=1), tombstone(other, revision=1)])
        found = await locate(index, [UUID, "tt1"])
        assert (found[UUID].id, found["tt1"].id) == (UUID, other)  # type: ignore[union-attr]
        assert await index.present([own, other, UUID, item_uid("films", "x"), "no id"]) == {UUID}
    finally:
        await index.close()
