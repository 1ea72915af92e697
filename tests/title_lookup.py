"""One title looked up in an index."""

from matinee.errors import MatineeError
from matinee.index.protocols import Index
from matinee.recommend.titles import Resolution, resolve_all


async def resolve(index: Index, title: str) -> Resolution:
    """The one item with this title; raises its error."""
    resolution = (await resolve_all(index, [title]))[title]
    if isinstance(resolution, MatineeError):
        raise resolution
    return resolution
