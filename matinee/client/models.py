"""A running server's models, asked over HTTP as if they were loaded here: what an ingest without a GPU of its own builds an index with.

A server that is full, starting or out of reach for a while is asked again, with growing pauses; every request has a deadline. Does not
write items and does not know the index.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_random_exponential

from matinee.client import calls
from matinee.client.calls import ServerInfo
from matinee.client.http import Client, ServerError
from matinee.errors import FingerprintError, ModelError
from matinee.items import MAX_TEXT_CHARS, MAX_TEXTS, Item
from matinee.models.types import Kind
from matinee.settings.tree import Settings
from matinee.vectors import Matrix

log = logging.getLogger(__name__)

T = TypeVar("T")

_PASSING = {
    *("overloaded", "too_many_requests", "unavailable", "deadline", "index_unavailable", "index_locked"),
    *("timeout", "unreachable", "malformed"),
}
_QUIET_S = 5
_AT_ONCE = 8


@dataclass(frozen=True)
class RetryPolicy:
    """Retries what failed for a passing reason, until `seconds` have gone by without an answer."""

    seconds: float
    sleep: Callable[[float], None] = time.sleep

    def __call__(self, what: str, ask: Callable[[], T]) -> T:
        """The result of `ask`. Raises the server's last error, with `what` was asked for and for how long."""

        def log_retry(state: RetryCallState) -> None:
            level = logging.INFO if (state.seconds_since_start or 0) < _QUIET_S else logging.WARNING
            log.log(level, "%s: %s; again in %.1f s", what, state.outcome and state.outcome.exception(), state.upcoming_sleep)

        start = time.monotonic()
        retrying = Retrying(
            retry=retry_if_exception(_is_passing),
            wait=wait_random_exponential(multiplier=0.5, min=0.25, max=30),
            stop=stop_before_delay(self.seconds),
            sleep=self.sleep,
            before_sleep=log_retry,
            reraise=True,
        )
        try:
            return retrying(ask)
        except ServerError as error:
            waited = retrying.statistics.get("delay_since_first_attempt", time.monotonic() - start)
            gave_up = f"gave up after {waited:.0f} s of asking: " if _is_passing(error) else ""
            raise ServerError(f"{what}: {gave_up}{error}", error.code) from error


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, ServerError) and error.code in _PASSING


def connect(server: Client, settings: Settings, patience: RetryPolicy) -> ServerInfo:
    """What the server says of itself. Raises `ServerError` where it serves another catalogue, or is out of reach for good."""
    info = patience(f"reaching {server.url}", lambda: server.send(calls.info()))
    if info["catalogue"] != settings.catalogue:
        raise ServerError(
            f"{server.url} serves the catalogue {info['catalogue']!r}, not {settings.catalogue!r}: set --catalogue, or create it there "
            f"with `matinee catalogues create {settings.catalogue}`",
            "invalid",
        )
    return info


def in_catalogue(server: Client, settings: Settings, patience: RetryPolicy) -> Client:
    """The server, asked for the catalogue of `settings` where it has one beside its default one."""
    return patience(f"reaching {server.url}", lambda: server.of(settings.catalogue)) or server


class RemoteEmbedder:
    """The server's embedder."""

    def __init__(self, server: Client, info: ServerInfo, settings: Settings, patience: RetryPolicy) -> None:
        remote = info["embedder"]
        if "fingerprint" not in remote:
            raise ServerError(f"{server.url}: its embedder can't be asked now ({remote.get('trouble')})", "unavailable")
        if remote["language"] != settings.embedder.language:
            raise ModelError(
                f"embedder.language is {settings.embedder.language!r} here and {remote['language']!r} at {server.url}: "
                "an index belongs to one; set it alike"
            )
        self._server, self._patience = server, patience
        self.fingerprint = remote["fingerprint"]
        self.dimension = remote["dimension"]
        self.model_id = remote["model"]
        self.precision: str = str(remote.get("precision"))
        # Half, because the texts grow when they are written as JSON.
        self._max_chars = info["limits"]["body_bytes"] // 2

    def encode(self, texts: Sequence[str], *, kind: Kind = "document") -> Matrix:
        return np.concatenate([self._ask(batch, kind) for batch in self.split(texts)])

    def split(self, texts: Sequence[str]) -> list[list[str]]:
        """The texts of one request each."""
        batches: list[list[str]] = []
        chars = 0
        for text in texts:
            size = min(len(text), MAX_TEXT_CHARS)
            if not batches or len(batches[-1]) == MAX_TEXTS or chars + size > self._max_chars:
                batches.append([])
                chars = 0
            batches[-1].append(text)
            chars += size
        return batches

    def _ask(self, texts: Sequence[str], kind: Kind) -> Matrix:
        call = calls.embed([text[:MAX_TEXT_CHARS] for text in texts], kind)
        what = f"embedding {len(texts)} texts ({texts[0][:40]!r} ...)"
        answer = self._patience(what, lambda: self._server.send(call))
        if answer["fingerprint"] != self.fingerprint:
            raise FingerprintError(f"the embedder of {self._server.url} was replaced while this ran: run it again, for the new one")
        return np.asarray(answer["vectors"], np.float32)


@dataclass(frozen=True)
class RemoteDescription:
    """A description as the API answers it."""

    text: str


class RemoteEnhancer:
    """The server's enhancer."""

    def __init__(self, server: Client, info: ServerInfo, patience: RetryPolicy) -> None:
        enhancer = info["enhancer"] or {}
        if not enhancer.get("digest"):
            why = enhancer.get("trouble") or "it is switched off there (enhancer.enabled)"
            raise ServerError(f"{server.url}: the recipe wants descriptions, but its enhancer can't be asked: {why}", "unavailable")
        self._server, self._patience = server, patience
        self._info = enhancer

    def info(self) -> dict[str, object]:
        return self._info

    def describe(self, items: Sequence[Item]) -> list[RemoteDescription]:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="describe") as pool:
            return list(pool.map(self._ask, items))

    def _ask(self, item: Item) -> RemoteDescription:
        call = calls.describe_item(item)
        answer = self._patience(f"describing {item.title!r}", lambda: self._server.send(call))
        return RemoteDescription(answer["description"])
