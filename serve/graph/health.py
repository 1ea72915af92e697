"""The health of the graph: what runs and what is degraded (`/v1/info`), and whether traffic may come (`/readyz`). Does not know HTTP."""

import asyncio
import logging
import time
from importlib.metadata import version
from typing import Literal, TypedDict

from matinee.errors import MatineeError
from matinee.index.types import Manifest
from matinee.items import MAX_TITLE
from matinee.recommend import titles
from serve.graph import messages
from serve.graph.context import RequestContext
from serve.graph.gateway import Gateway
from serve.graph.index_service import IndexStatus
from serve.graph.messages import Json
from serve.graph.parts import Info

OUTAGE_S = 60.0
"""How long the index store may be out of reach before gateways call themselves unready."""
CHECKED_S = 1.0
"""How long a readiness check holds: however many probes come, the Retriever sees one in this time."""
OTHER_EMBEDDER = {
    True: "index: made by another embedder than the one that serves; texts are searched in the version before",
    False: "index: made by another embedder than the one that serves; text search is refused until a new ingest",
}
"""What `degraded` says of an index of another encoder, by whether the version before it still answers: nothing that has to be hidden."""

log = logging.getLogger(__name__)


class HealthReport(TypedDict):
    """What `/v1/info` says. `embedder` and `enhancer` are what the parts report of themselves."""

    version: str
    catalogue: str
    placement: Literal["process", "ray"]
    index: Json | None
    embedder: Json
    enhancer: Json | None
    search: Json
    limits: dict[str, float]
    writable: bool
    building: bool
    index_trouble: str | None
    degraded: list[str]


class Health:
    """The graph as one gateway sees it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._reached_at = float("-inf")
        self._checking = asyncio.Lock()
        self._checked: tuple[float, list[MatineeError]] = float("-inf"), []
        self._logged: set[str] = set()

    async def info(self, writable: bool, context: RequestContext) -> HealthReport:
        infos = self._gateway.graph.infos
        # At once: one that hangs until the deadline leaves the others their time.
        parts_report = asyncio.gather(*(_part_info(info, context) for info in infos.values()))
        status, reports = await asyncio.gather(self._index_status(context), parts_report)
        parts = dict(zip(infos, reports, strict=True))
        degraded = [f"{name}: {part['trouble']}" for name, part in parts.items() if part.get("trouble")]
        if status.trouble:
            degraded.append(f"index: {status.trouble}")
        manifest = status.manifest
        if manifest is not None and manifest.fingerprint != parts["embedder"].get("fingerprint", manifest.fingerprint):
            degraded.append(OTHER_EMBEDDER[parts["embedder"]["fingerprint"] == status.before])
        self._log_new(degraded)
        settings = self._gateway.settings
        search, serving = settings.search, settings.serving
        return {
            "version": version("matinee"),
            "catalogue": settings.catalogue,
            "placement": self._gateway.graph.placement,
            "index": None if manifest is None else _index_info(manifest, status),
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
            "building": status.building,
            "index_trouble": status.trouble,
            "degraded": degraded,
        }

    def _log_new(self, degraded: list[str]) -> None:
        """Log what is degraded now and was not at the last report. Not every caller is shown why."""
        for text in set(degraded) - self._logged:
            log.warning("degraded: %s", text)
        self._logged = set(degraded)

    async def _index_status(self, context: RequestContext) -> IndexStatus:
        """What the Retriever reports. While it is out of reach, the reports of the other parts matter most."""
        try:
            return await self._gateway.retrieve(messages.ReadStatus(), context)
        except MatineeError as error:
            return IndexStatus(trouble=str(error))

    async def unready(self, context: RequestContext) -> list[MatineeError]:
        """Why this gateway should get no traffic; empty when it should. Up to `CHECKED_S` old.

        A short outage of the index store makes answers 503, not every gateway unready at once.
        """
        async with self._checking:
            at, reasons = self._checked
            if time.monotonic() - at > CHECKED_S:
                reasons = await self._check(context)
                self._checked = time.monotonic(), reasons
            return reasons

    async def _check(self, context: RequestContext) -> list[MatineeError]:
        try:
            status = await self._gateway.retrieve(messages.ReadStatus(), context)
        except MatineeError as error:
            return [error] if time.monotonic() - self._reached_at > OUTAGE_S else []
        self._reached_at = time.monotonic()
        if status.manifest is None:
            return [status.absence()]
        return []


def _index_info(manifest: Manifest, status: IndexStatus) -> Json:
    return manifest.model_dump(mode="json") | {
        "attributes": {name: attribute.model_dump(mode="json") for name, attribute in manifest.declared.items()},
        "items": status.items,
        "approximate": status.approximate,
        "previous": status.previous,
    }


async def _part_info(info: Info, context: RequestContext) -> Json:
    """What a part reports of itself; a part that is out of reach is degraded, and hides nothing of the others."""
    try:
        async with asyncio.timeout(context.deadline - time.monotonic()):
            return await info()
    except (MatineeError, TimeoutError) as error:
        return {"trouble": str(error) or "no answer within the deadline"}
