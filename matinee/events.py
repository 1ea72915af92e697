"""The event log: what was answered (impressions) and what users did with it (feedback), appended as JSONL parts under `events.uri`.

    <uri>/<day>/<time>-<writer>-<number>.jsonl    one writer a replica; a part is written whole, under another name first

An event that was taken waits in a bounded queue, at most `flush_s`; a crash loses what waits, a store that is down is tried again. Days
older than `keep_days` are deleted by whoever writes. Does not know who reads the events (`matinee evalset make` does), nor what their
items are.
"""

import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any

import fsspec
import orjson

from matinee.errors import SettingsError, SourceError
from matinee.settings.serving import EventSettings

log = logging.getLogger(__name__)

IMPRESSION = "impression"
FEEDBACK = ("shown", "clicked", "liked", "disliked")
CLOSE_S = 10.0


class EventLog:
    """Writes the events of one process. `dropped` gets how many were lost, and why."""

    def __init__(self, uri: str, settings: EventSettings, dropped: Callable[[int, str], None]) -> None:
        self._fs, self._root = _open(uri)
        self._uri = uri
        self._settings = settings
        self._dropped = dropped
        self._writer = uuid.uuid4().hex[:12]
        self._parts = 0
        self._waiting: deque[dict[str, Any]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._failing = False
        self._thread: threading.Thread | None = None
        self._tidied: date | None = None

    def offer(self, events: Sequence[Mapping[str, Any]]) -> bool:
        """Take all of them, or none where the queue is full. Never blocks on the store."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._changed:
            taken = not self._closing and len(self._waiting) + len(events) <= self._settings.max_waiting
            if taken:
                self._waiting.extend({"at": at, **event} for event in events)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="events", daemon=True)
                    self._thread.start()
                if len(self._waiting) >= self._settings.flush_events:
                    self._changed.notify()
        if not taken:
            self._dropped(len(events), "full")
        return taken

    def close(self) -> None:
        """Write what waits, within seconds; what can't be written then is lost, and counted."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        with self._changed:
            left = len(self._waiting)
            self._waiting.clear()
        if left:
            self._dropped(left, "unwritten")

    def _run(self) -> None:
        while True:
            # A try that failed before the closing is not the last one.
            last = self._closing
            if not self._write_some() and last:
                return

    def _write_some(self) -> bool:
        """Wait for a full part, or for `flush_s`, and write it; False where there was nothing to write, or no way to."""
        most = self._settings.flush_events
        with self._changed:
            # While the store is down a full queue must not make this loop spin.
            self._changed.wait_for(
                lambda: self._closing or (len(self._waiting) >= most and not self._failing), timeout=self._settings.flush_s
            )
            part = list(islice(self._waiting, most))
        if not part or not self._written(part):
            return False
        with self._changed:
            for _ in range(min(len(part), len(self._waiting))):
                self._waiting.popleft()
        return True

    def _written(self, part: Sequence[Mapping[str, Any]]) -> bool:
        now = datetime.now(UTC)
        folder = f"{self._root}/{now:%Y-%m-%d}"
        target = f"{folder}/{now:%H%M%S}-{self._writer}-{self._parts:06d}.jsonl"
        try:
            self._fs.makedirs(folder, exist_ok=True)
            self._fs.pipe_file(f"{target}.partial", b"".join(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in part))
            self._fs.mv(f"{target}.partial", target)
        except Exception as error:  # noqa: BLE001  each store has errors of its own
            if not self._failing:
                log.warning("cannot write events to %s: %s; they wait, at most %d", self._uri, error, self._settings.max_waiting)
            self._failing = True
            return False
        self._parts += 1
        self._failing = False
        self._tidy(now.date())
        return True

    def _tidy(self, today: date) -> None:
        """Delete the days that are too old, once a day. Another writer may do the same at the same time."""
        if not self._settings.keep_days or self._tidied == today:
            return
        self._tidied = today
        oldest = today - timedelta(days=self._settings.keep_days)
        try:
            for folder in self._fs.ls(self._root, detail=False):
                day = _day(str(folder).rstrip("/").rpartition("/")[2])
                if day is not None and day < oldest:
                    self._fs.rm(folder, recursive=True)
        except FileNotFoundError:
            return
        except Exception as error:  # noqa: BLE001  each store has errors of its own
            log.warning("cannot delete old events under %s: %s; tried again tomorrow", self._uri, error)


def _day(name: str) -> date | None:
    """The day of a folder of events, None for a folder that is no day's."""
    try:
        return date.fromisoformat(name) if len(name) == len("2026-01-31") else None
    except ValueError:
        return None


def check_uri(uri: str) -> None:
    """Raises where nothing here opens such a URI. Does not ask the store."""
    _open(uri)


def read_events(uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where it stands, and the event, for each line of a file, or of all parts in a folder or under a URI."""
    fs, root = _open(uri)
    try:
        names = sorted(fs.glob(f"{root}/**/*.jsonl")) if fs.isdir(root) else [root]
        for name in names:
            for number, line in enumerate(fs.cat_file(name).splitlines(), 1):
                if not line.strip():
                    continue
                where = f"{name}, line {number}"
                try:
                    event = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise SourceError(f"{where}: {error}") from None
                if not isinstance(event, dict):
                    raise SourceError(f"{where}: not a JSON object")
                yield where, event
    except OSError as error:
        raise SourceError(f"cannot read {uri}: {error.strerror or error}") from None


def with_impressions(uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """`read_events`, where feedback also carries the user and the text of its impression. Feedback that was sent twice comes once."""
    impressions: dict[str, dict[str, Any]] = {}
    by_request: dict[str, dict[str, Any]] = {}
    for _, event in read_events(uri):
        if event.get("event") != IMPRESSION:
            continue
        fields = {key: event[key] for key in ("user_id", "text") if event.get(key) is not None}
        if event.get("impression"):
            impressions.setdefault(event["impression"], fields)
        elif name := event.get("request_id"):
            # Logs from before tokens. Clients chose these ids: one that was used for two answers names neither.
            by_request[name] = fields if by_request.get(name, fields) == fields else {}
    seen: set[str] = set()
    for where, event in read_events(uri):
        fields = {key: value for key, value in event.items() if value is not None}
        if "impression" not in fields:
            yield where, {**by_request.get(event.get("request_id") or "", {}), **fields}
            continue
        if id := fields.get("id"):
            if id in seen:
                continue
            seen.add(id)
        yield where, {**impressions.get(fields["impression"], {}), **fields}


def _open(uri: str) -> tuple[Any, str]:
    try:
        fs, root = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise SettingsError(f"events.uri {uri}: {error}") from None
    return fs, str(root).rstrip("/")
