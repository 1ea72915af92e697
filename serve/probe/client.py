"""The API as the probe asks it: over HTTP, each request with a deadline, few at a time, its time and its failure passed to a callback.

Does not know what is asked, nor how it is exported. Neither texts nor the key ever reach a message.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Self

import httpx

from matinee.errors import MatineeError, SettingsError
from matinee.settings.addresses import is_inside
from matinee.settings.serving import ProbeSettings
from serve.errors import STATUS

Observe = Callable[[str, float], None]
Count = Callable[[str], None]

REASONS = frozenset({*STATUS, "unauthorized", "forbidden", "invalid", "bad_request", "internal", "timeout", "unreachable", "malformed"})
"""Why a request failed: the envelope's codes, and what happens before there is one. Anything else counts as `other`."""


class AskError(MatineeError):
    """A request of the probe that got no answer it can use."""

    code = "ask"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason if reason in REASONS else "other"


class ProbeClient:
    """One server. `observe(endpoint, seconds)` hears of every request, `count(reason)` of every failed one.

    Proxies of the environment are asked for servers outside alone (`is_inside`).
    """

    def __init__(self, url: str, settings: ProbeSettings, observe: Observe, count: Count) -> None:
        self.url = url.rstrip("/")
        key = settings.key.get_secret_value().strip() if settings.key else ""
        limits = httpx.Limits(max_connections=settings.concurrency)
        try:
            headers = httpx.Headers({"Authorization": f"Bearer {key}"} if key else {}, encoding="ascii")
            direct = settings.url is None or is_inside(self.url)
            transport = httpx.AsyncHTTPTransport(limits=limits) if direct else None
            self._client = httpx.AsyncClient(
                base_url=self.url, headers=headers, timeout=settings.deadline_s, limits=limits, transport=transport
            )
        except httpx.InvalidURL as error:
            raise SettingsError(f"probe.url {url!r} is not the URL of a server ({error}): write it like http://127.0.0.1:8000") from None
        except UnicodeEncodeError:
            raise SettingsError("probe.key has characters that no key has: copy it again") from None
        except (ImportError, ValueError) as error:
            raise SettingsError(f"a proxy of the environment can't be used ({error}): set NO_PROXY for the server") from None
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._deadline_s = settings.deadline_s
        self._observe, self._count = observe, count

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self, endpoint: str, path: str, *, missing_is_fine: bool = False, **params: Any) -> dict[str, Any]:
        """Raises `AskError`; with `missing_is_fine` one of reason `not_found` counts as no failure."""
        return await self._ask(endpoint, "GET", path, missing_is_fine=missing_is_fine, params=params)

    async def post(self, endpoint: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._ask(endpoint, "POST", path, json=body)

    def failed(self, reason: str, message: str) -> AskError:
        """The error, counted, of a request whose answer turned out to be of no use."""
        error = AskError(reason, message)
        self._count(error.reason)
        return error

    async def exists(self, id: str) -> bool:
        """Whether the index has this item."""
        return await self.index_id(id) is not None

    async def index_id(self, id: str) -> str | None:
        """The index id of the item that has this id; None where there is no such item."""
        try:
            return str((await self.get("item", "/v1/item", missing_is_fine=True, id=id))["id"])
        except AskError as error:
            if error.reason != "not_found":
                raise
            return None

    async def _ask(self, endpoint: str, method: str, path: str, *, missing_is_fine: bool = False, **kwargs: Any) -> dict[str, Any]:
        """The answer's JSON. Raises `AskError`; waiting for a free slot counts towards no deadline."""
        async with self._slots:
            start = time.perf_counter()
            try:
                # One deadline for the whole request: httpx's would be one for each of its phases.
                async with asyncio.timeout(self._deadline_s):
                    response = await self._client.request(method, path, **kwargs)
                return _content(response, f"{self.url}{path}")
            except (TimeoutError, httpx.TimeoutException):
                failure = AskError("timeout", f"{self.url}{path} gave no answer within {self._deadline_s:g} s (probe.deadline_s)")
            except httpx.HTTPError as error:
                failure = AskError(
                    "unreachable", f"{self.url} does not answer ({type(error).__name__}): does it run, and is probe.url right?"
                )
            except AskError as error:
                failure = error
            finally:
                self._observe(endpoint, time.perf_counter() - start)
        if not (missing_is_fine and failure.reason == "not_found"):
            self._count(failure.reason)
        raise failure


def _content(response: httpx.Response, where: str) -> dict[str, Any]:
    try:
        content = response.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise AskError("malformed", f"{where} answered {response.status_code}, but not as a Matinee server does: check probe.url")
    if response.is_error:
        code, message = str(content.get("code", "other")), str(content.get("message", ""))[:500]
        raise AskError(code, f"{where} answered {response.status_code} {code[:50]}: {message}")
    return content
