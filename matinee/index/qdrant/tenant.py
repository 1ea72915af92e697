"""One version of one catalogue inside a collection that several catalogues share: names, keys and conditions. Pure translation.

Each point carries its catalogue and its version. What is the index's own (`OWN_FIELDS`) has the same key for all catalogues, so they share
its payload index. Everything else lies below a key of the catalogue's, so no two catalogues share an attribute.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar, cast

from matinee.filters.conditions import All, Condition, Equal, HasId, Not, Some
from matinee.index.types import OWN_FIELDS, Manifest, Payload, Point

TENANT, VERSION, UID = "tenant", "version", "uid"
_HALF = len("00000000-0000-0000")
_POINTS = uuid.UUID("7c0e3d3b-6f0a-4b0e-9d53-4f1b0a4f6d11")


class _Record(Protocol):
    payload: dict[str, object] | None

    def model_copy(self, *, update: Mapping[str, object]) -> Self: ...


Restored = TypeVar("Restored", bound=_Record)


SHARED = "_matinee_shared."
"""How the names of all shared collections begin. No catalogue's name begins with an underscore."""


def collection_name(manifest: Manifest) -> str:
    """The shared collection for versions of this encoder, with these vectors."""
    sizes = ".".join(f"{name}-{size}" for name, size in sorted(manifest.dimensions.items()))
    return f"{SHARED}{manifest.fingerprint[:16]}.{sizes}"


@dataclass(frozen=True)
class Tenant:
    """A version of a catalogue."""

    catalogue: str
    version: str

    @property
    def prefix(self) -> str:
        """The catalogue's key in payloads: letters, digits and underscores, because other signs have a meaning in a path."""
        return "in_" + self.catalogue.replace("_", "_u").replace("-", "_d")

    def key(self, key: str) -> str:
        return key if key in OWN_FIELDS else f"{self.prefix}.{key}"

    def id(self, uid: str) -> str:
        """The id of a point: that of the item would be the same in each version. The first half is the item's, so pages keep its order."""
        return uid[:_HALF] + str(uuid.uuid5(_POINTS, f"{self.catalogue}/{self.version}/{uid}"))[_HALF:]

    def to_stored(self, point: Point) -> Point:
        """The point as the collection has it."""
        own = {key: value for key, value in point.payload.items() if key in OWN_FIELDS}
        rest = {key: value for key, value in point.payload.items() if key not in OWN_FIELDS}
        whose = {TENANT: self.catalogue, VERSION: self.version, UID: point.id, self.prefix: rest}
        return replace(point, id=self.id(point.id), payload=cast(Payload, own | whose))

    def restore(self, record: Restored) -> Restored:
        """A stored point as its catalogue knows it."""
        payload = record.payload or {}
        own = {key: value for key, value in payload.items() if key in OWN_FIELDS}
        rest = payload.get(self.prefix)
        return record.model_copy(update={"id": payload[UID], "payload": {**(rest if isinstance(rest, Mapping) else {}), **own}})

    def fields(self, payload: bool | Sequence[str]) -> bool | list[str]:
        """Which parts of a payload are to be read, so that `restore` can read the point."""
        return payload if payload is True else [UID, *([self.key(key) for key in payload] if payload else ())]

    def condition(self, condition: Condition | None) -> Condition:
        """`condition`, of the points of this version alone."""
        whose: tuple[Condition, ...] = (Equal(TENANT, self.catalogue), Equal(VERSION, self.version))
        return All(whose if condition is None else (*whose, self._rename(condition)))

    def _rename(self, condition: Condition) -> Condition:
        match condition:
            case All(of):
                return All(tuple(map(self._rename, of)))
            case Some(of):
                return Some(tuple(map(self._rename, of)))
            case Not(of):
                return Not(self._rename(of))
            case HasId(ids):
                return HasId(tuple(map(self.id, ids)))
        return replace(condition, key=self.key(condition.key))
