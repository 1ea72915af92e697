"""Ids as clients write them: an index id (a UUID), or the catalogue's own."""

import uuid
from typing import Literal, overload

from matinee.items import item_uid


@overload
def as_uid(id: str, catalogue: str) -> str: ...
@overload
def as_uid(id: str, catalogue: str, *, strict: Literal[True]) -> str | None: ...
def as_uid(id: str, catalogue: str, *, strict: bool = False) -> str | None:
    """The index id of `id`; with `strict`, None for what is no UUID (a title, then)."""
    try:
        return str(uuid.UUID(id))
    except ValueError:
        return None if strict else item_uid(catalogue, id)
