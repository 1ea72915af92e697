"""The gateway's side of the event log: impressions of what was answered, and what users did with it (`feedback`).

Feedback trains models, so it counts only for answers that this server gave: it brings the answer's token, and the token says for whom the
answer was and what it showed. Does not write (`matinee.events`).
"""

import hashlib
import uuid
from typing import TypedDict

import orjson

from matinee.errors import EventsOffError, OverloadedError
from matinee.events import FEEDBACK, IMPRESSION, EventLog
from matinee.index.ids import index_ids
from matinee.recommend.queries import RankedItems
from matinee.settings.tree import Settings
from serve.api.auth import Caller
from serve.api.feedback_tokens import FeedbackTokens, Impression, SigningKeys
from serve.api.limits import RateLimit
from serve.api.schemas_feedback import FeedbackRequest
from serve.errors import RequestError
from serve.graph.context import RequestContext
from serve.telemetry.metrics import Metrics


class FeedbackEvent(TypedDict):
    """What a user did with one item of an answer, as the event log has it."""

    event: str
    id: str
    catalogue: str
    impression: str
    key: str | None
    user_id: str | None
    item: str


class Events:
    """Turns answers and feedback into events of one catalogue; does nothing where `events.uri` is null.

    `beside`: the events of another catalogue, whose log and quotas these share.
    """

    def __init__(self, settings: Settings, metrics: Metrics, beside: "Events | None" = None) -> None:
        self._catalogue = settings.catalogue
        self._texts = settings.serving.log_texts
        self._metrics = metrics
        events = settings.events
        self._log: EventLog | None = None
        self._quota: RateLimit | None = None
        self._keys: SigningKeys
        if beside is not None:
            self._quota, self._log = beside._quota, beside._log
        else:
            self._quota = RateLimit(events.quota / 60, events.quota) if events.quota else None
            if events.uri is not None:
                self._log = EventLog(events.uri, events, self._count_dropped)
        if self._log is not None:
            self._keys = SigningKeys(events.signing_keys, settings.home_dir / "feedback.keys") if beside is None else beside._keys
            self._tokens = FeedbackTokens(self._keys, settings.catalogue, events.token_s)

    def _count_dropped(self, count: int, reason: str) -> None:
        self._metrics.events_dropped(count, reason=reason)

    def impression(
        self,
        ranked: RankedItems,
        endpoint: str,
        request_id: str,
        context: RequestContext,
        sender: Caller,
        user_id: str | None,
        text: str | None,
    ) -> str | None:
        """Log an impression of a ranked answer; returns the token for feedback on it, None where no events are kept.

        An impression that is lost is counted, and the answer goes out all the same.
        """
        if self._log is None:
            return None
        # Never the request's id: clients choose that one, and could claim the impression of another.
        id = uuid.uuid4().hex
        uids = [item["id"] for item in orjson.loads(ranked.items)]
        event: dict[str, object] = {
            "event": IMPRESSION,
            "catalogue": self._catalogue,
            "impression": id,
            "request_id": request_id,
            "endpoint": endpoint,
            "key": sender.key,
            "user_id": user_id,
            "items": uids,
            "score_type": ranked.score_type,
            "degraded": context.degraded,
        }
        if self._texts and text is not None:
            event["text"] = text
        if self._log.offer([event]):
            self._metrics.events(1, kind=IMPRESSION)
        return self._tokens.sign(id, user_id, uids)

    def accept(self, feedback: FeedbackRequest, sender: Caller) -> int:
        """Accept feedback as a whole; returns how many events it was.

        Raises where there is no log or no room in its queue, where the token does not count or shows no such item, and above the quota.
        """
        if self._log is None:
            raise EventsOffError("this server keeps no events: set events.uri")
        impression = self._tokens.read(feedback.token)
        events = self._events(feedback, impression, sender)
        if self._quota is not None and not self._quota.take(_quota_owner(sender, impression), len(events)):
            raise RequestError(429, f"more than {self._quota.rate * 60:g} events a minute (events.quota); send them again in a moment")
        if not self._log.offer(events):
            raise OverloadedError("too many events wait to be written; send them again in a moment")
        for event in events:
            self._metrics.events(1, kind=event["event"])
        return len(events)

    def _events(self, feedback: FeedbackRequest, impression: Impression, sender: Caller) -> list[FeedbackEvent]:
        events: dict[str, FeedbackEvent] = {}
        for kind in FEEDBACK:
            for id in getattr(feedback, kind):
                # The catalogue's own id, or the index': the one that the answer showed.
                uid = next((uid for uid in index_ids(id, self._catalogue) if impression.shows(uid)), None)
                if uid is None:
                    raise RequestError(422, f"{kind}: the answer of this token did not show the item {id!r}")
                # The same act of the same user has the same id, however often it is sent: it counts once.
                event_id = hashlib.sha256(f"{impression.id}/{kind}/{uid}".encode()).hexdigest()[:32]
                events[event_id] = {
                    "event": kind,
                    "id": event_id,
                    "catalogue": self._catalogue,
                    "impression": impression.id,
                    "key": sender.key,
                    "user_id": impression.user_id,
                    "item": uid,
                }
        return list(events.values())

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


def _quota_owner(sender: Caller, impression: Impression) -> str:
    """Whose quota feedback counts on: the key's, else the client address'.

    Clients that have neither can't be told apart, as behind a proxy that is not trusted. There each answer has a quota of its own: one
    client can't use up that of all, and has to ask for an answer to get another.
    """
    for kind, name in (("key", sender.key), ("address", sender.address)):
        if name is not None:
            return f"{kind} {name}"
    return f"answer {impression.id}"
