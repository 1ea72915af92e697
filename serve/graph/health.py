"""The state of the graph: what runs and what is degraded (`/v1/info`), and whether traffic may come (`/readyz`). Does not know HTTP."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

from matinee.errors import MatineeError
from matinee.items import MAX_TITLE
from matinee.recommend import titles
from serve.graph import messages
from serve.graph.gateway import Service
from serve.graph.parts import Trace

OUTAGE_S = 60.0
"""How long the index store may be out of reach before gateways call themselves unready."""


class State:
    """The graph as one gateway sees it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._reached_at = float("-inf")

    async def info(self, writable: bool, trace: Trace) -> dict[str, Any]:
        infos = self._service.graph.infos
        # At once: one that hangs until the deadline leaves the others their time.
        status, *told = await asyncio.gather(self._index_info(trace), *(_part_info(ask, trace) for ask in infos.values()))
        parts = dict(zip(infos, told, strict=True))
        degraded = [f"{name}: {part['trouble']}" for name, part in parts.items() if part.get("trouble")]
        if status["trouble"]:
            degraded.append(f"index: {status['trouble']}")
        index = status["index"]
        if index is not None and index["fingerprint"] != parts["embedder"].get("fingerprint", index["fingerprint"]):
            rolling = parts["embedder"]["fingerprint"] == status["before"]
            so = "texts are searched in the version before" if rolling else "text search is refused until a new ingest"
            degraded.append(f"index: made by another embedder than the one that serves; {so}")
        settings = self._service.settings
        search, serving = settings.search, settings.serving
        return {
            "version": version("matinee"),
            "catalogue": settings.catalogue,
            "index": None if index is None else {**index, "previous": status["previous"]},
            "embedder": parts["embedder"],
            "enhancer": parts.get("enhancer"),
            "search": search.model_dump(mode="json"),
            "limits": {
                "k": search.max_k,
                "titles": titles.MAX_TITLES,
                "title_chars": MAX_TITLE,
                "text_chars": serving.max_text_chars,
                "body_bytes": serving.max_body_bytes,
                "deadline_s": serving.deadline_s,
            },
            "writable": writable,
            "index_trouble": status["trouble"],
            "degraded": degraded,
        }

    async def _index_info(self, trace: Trace) -> dict[str, Any]:
        """What the Retriever says; with the index out of reach, what the other parts say is wanted most of all."""
        try:
            return dict(await self._service.ask(messages.Status(), trace))
        except MatineeError as error:
            return {"index": None, "previous": None, "trouble": str(error)}

    async def unready(self, trace: Trace) -> list[str]:
        """Why this gateway should get no traffic; empty when it should.

        A short outage of the index store makes answers 503, not every gateway unready at once.
        """
        try:
            status = await self._service.ask(messages.Status(), trace)
        except MatineeError as error:
            return [str(error)] if time.monotonic() - self._reached_at > OUTAGE_S else []
        self._reached_at = time.monotonic()
        if status["index"] is None:
            return [status["trouble"] or "index_absent: build an index with `matinee ingest FILE`"]
        return []


async def _part_info(ask: Callable[[], Awaitable[dict[str, Any]]], trace: Trace) -> dict[str, Any]:
    """What a part says of itself; a part that can't be asked now is degraded, and hides nothing of the others."""
    try:
        async with asyncio.timeout(trace.deadline - time.time()):
            return await ask()
    except (MatineeError, TimeoutError) as error:
        return {"trouble": str(error) or "no answer within the deadline"}
