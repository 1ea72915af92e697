"""One collection for index versions: made as the settings say, its HNSW index built in one go and awaited. Knows no catalogue."""

import asyncio
from collections.abc import Mapping

from qdrant_client import models

from matinee.errors import IndexUnavailableError, IndexUnreachableError
from matinee.index.qdrant import query as translate
from matinee.index.qdrant.connection import Connection
from matinee.index.types import Manifest

_INDEXED_FROM_KB = 20_000
"""The server's own default: segments with fewer vectors are scanned."""
_POLL_S = 1.0


async def create(
    call: Connection,
    name: str,
    manifest: Manifest,
    payload_indexes: Mapping[str, models.PayloadSchemaType | models.KeywordIndexParams],
    *,
    shared: bool = False,
) -> None:
    """A collection with all payload indexes before its first point. One that exists gets those that it lacks.

    The HNSW index of a collection that is not `shared` may be left for `complete`.
    """
    client, settings = call.client, call.settings
    if not await call(client.collection_exists(name)):
        options = translate.collection(manifest, settings)
        if settings.defer_indexing and not shared:
            options["optimizers_config"] = models.OptimizersConfigDiff(indexing_threshold=0)
        try:
            await call(client.create_collection(name, **options), patient=True)
        except (IndexUnavailableError, ValueError) as error:
            # Another catalogue's build came first: the server's 409, and the local mode's word for it.
            if not shared or "already exists" not in str(error):
                raise
        if settings.read_fan_out is not None:
            # No argument of the creation.
            fan_out = models.CollectionParamsDiff(read_fan_out_factor=settings.read_fan_out)
            await call(client.update_collection(name, collection_params=fan_out), patient=True)
    if not call.local:
        for field, schema in payload_indexes.items():
            await call(client.create_payload_index(name, field, field_schema=schema, wait=True), patient=True)


async def complete(call: Connection, name: str) -> None:
    """Index what was written. Returns when the server has nothing left to do, so that no search is answered by a scan of all vectors.

    A server that is out of reach meanwhile is asked again. Raises `IndexUnavailableError` where it can't index, and where
    `index.indexing_wait_s` is over.
    """
    settings = call.settings
    if call.local:
        return
    try:
        async with asyncio.timeout(settings.indexing_wait_s):
            if settings.defer_indexing:
                await _optimize(call, name, models.OptimizersConfigDiff(indexing_threshold=_INDEXED_FROM_KB))
            await _wait_until_idle(call, name)
    except TimeoutError:
        raise IndexUnavailableError(
            f"the Qdrant server at {call.where} has not indexed {name} within {settings.indexing_wait_s:g} s; it was not made current: "
            "look at the server's CPUs, or raise index.indexing_wait_s"
        ) from None


async def _optimize(call: Connection, name: str, change: models.OptimizersConfigDiff) -> None:
    """Apply a change, and have the server look for work. Without a change, it only looks."""
    while True:
        try:
            await call(call.client.update_collection(name, optimizers_config=change), patient=True)
        except IndexUnreachableError:
            # The change waits for what the server optimises now.
            await asyncio.sleep(_POLL_S)
        else:
            return


async def _wait_until_idle(call: Connection, name: str) -> None:
    calm = 0
    # Twice: between a change and the work that follows it, the server says for a moment that it has none.
    while calm < 2:
        try:
            info = await call(call.client.get_collection(name))
        except IndexUnreachableError:
            calm = 0
        else:
            if info.status == models.CollectionStatus.RED or isinstance(info.optimizer_status, models.OptimizersStatusOneOf1):
                error = getattr(info.optimizer_status, "error", info.status)
                raise IndexUnavailableError(
                    f"the Qdrant server at {call.where} can't index {name}: {error}. It was not made current: look at the server's log"
                )
            if info.status == models.CollectionStatus.GREY:
                # After a restart: there is work, and the server waits for a write before it begins.
                await _optimize(call, name, models.OptimizersConfigDiff())
            calm = calm + 1 if info.status == models.CollectionStatus.GREEN else 0
        if calm < 2:
            await asyncio.sleep(_POLL_S)
