"""The gateway's side of the event log: impressions of what was answered, and `POST /v1/feedback` for what users did with it.

Feedback changes no item and no answer, so that a key with the scope read may send it: whoever shows recommendations reports on them, and
must not need a key that writes items for that. Does not write (`matinee.events`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from matinee.errors import EventsOffError, OverloadedError
from matinee.events import FEEDBACK, IMPRESSION, EventLog
from matinee.recommend.recommender import RankedItems
from matinee.settings.tree import Settings
from serve.api.auth import ApiKeys
from serve.api.responses import ERRORS, KEY, allow, json_response
from serve.api.schemas_feedback import FeedbackRequest, FeedbackResponse
from serve.graph.gateway import Gateway
from serve.graph.parts import Trace
from serve.telemetry.metrics import Metrics


class Events:
    """Turns answers and feedback into events of one catalogue; does nothing where `events.uri` is null."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._catalogue = settings.catalogue
        self._texts = settings.serving.log_texts
        self._metrics = metrics
        self._log = None if settings.events.uri is None else EventLog(settings.events.uri, settings.events, self._dropped)

    def _dropped(self, count: int, reason: str) -> None:
        self._metrics.events_dropped(count, reason=reason)

    def impression(self, ranked: RankedItems, endpoint: str, request_id: str, trace: Trace, user_id: str | None, text: str | None) -> None:
        """An impression of a ranked answer. One that is lost is counted, and the answer goes out all the same."""
        if self._log is None:
            return
        event: dict[str, Any] = {
            "event": IMPRESSION,
            "catalogue": self._catalogue,
            "request_id": request_id,
            "endpoint": endpoint,
            "user_id": user_id,
            "items": [item["id"] for item in orjson.loads(ranked.items)],
            "score_type": ranked.score_type,
            "degraded": trace.degraded,
        }
        if self._texts and text is not None:
            event["text"] = text
        if self._log.offer([event]):
            self._metrics.events(1, kind=IMPRESSION)

    def accept(self, feedback: FeedbackRequest, uids: Mapping[str, str]) -> int:
        """Accept feedback as a whole; returns how many events it was. `uids` has the index id of each id.

        Raises where there is no log, or no room in its queue.
        """
        if self._log is None:
            raise EventsOffError("this server keeps no events: set events.uri")
        events = list(self._events(feedback, uids))
        if not self._log.offer(events):
            raise OverloadedError("too many events wait to be written; send them again in a moment")
        for event in events:
            self._metrics.events(1, kind=event["event"])
        return len(events)

    def _events(self, feedback: FeedbackRequest, uids: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        for kind in FEEDBACK:
            for id in getattr(feedback, kind):
                yield {
                    "event": kind,
                    "catalogue": self._catalogue,
                    "request_id": feedback.request_id,
                    "user_id": feedback.user_id,
                    "item": uids[id],
                }

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


def routes(gateway: Gateway, events: Events, keys: ApiKeys) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["recommend"], responses=ERRORS, dependencies=KEY)

    @router.post("/feedback", status_code=202, response_model=FeedbackResponse, name="feedback")
    async def feedback(body: FeedbackRequest, request: Request) -> Response:
        """What a user saw, chose, liked or disliked. Kept in the event log, where there is one; changes no answer by itself."""
        allow(keys, request, "read")
        uids = await gateway.index_ids([id for kind in FEEDBACK for id in getattr(body, kind)], request.state.trace)
        return json_response(request, 202, accepted=events.accept(body, uids))

    return router
