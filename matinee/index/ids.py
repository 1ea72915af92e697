"""Ids as people and clients write them: the catalogue's own id first, then the id of the index, which is a UUID.

A catalogue's own id may look like a UUID, so only the index can tell which of the two is meant. The one place that decides it.
"""

import uuid
from collections.abc import Iterable, Mapping

from matinee.index.protocols import Index
from matinee.index.types import Hit
from matinee.items import item_uid


def as_uuid(id: str) -> str | None:
    """The id in the index's spelling of a UUID; None if it is not a UUID."""
    try:
        return str(uuid.UUID(id))
    except ValueError:
        return None


def index_ids(id: str, catalogue: str) -> tuple[str, ...]:
    """The index ids that `id` can stand for: as the catalogue's own id, then as an index id."""
    own, uid = item_uid(catalogue, id), as_uuid(id)
    return (own,) if uid is None else (own, uid)


async def locate(index: Index, ids: Iterable[str], *, vectors: bool = False) -> dict[str, Hit | None]:
    """The point of each id: a tombstone only if no stored item has the id, None if there is neither."""
    meanings = {id: index_ids(id, index.manifest.catalogue) for id in ids}
    uids = list(dict.fromkeys(uid for group in meanings.values() for uid in group))
    hits = dict(zip(uids, await index.retrieve(uids, vectors=vectors), strict=True)) if uids else {}
    return {id: _likeliest(uids, hits) for id, uids in meanings.items()}


def _likeliest(uids: Iterable[str], hits: Mapping[str, Hit | None]) -> Hit | None:
    there = [hit for uid in uids if (hit := hits[uid]) is not None]
    return next((hit for hit in there if not hit.payload.get("deleted")), there[0] if there else None)
