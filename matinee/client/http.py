"""A running server, asked over HTTP by the CLI, the jobs, the probe and the benchmarks: one client to wait for, and one to await.

Both build requests, read responses and explain failures alike. Does not know which requests there are (`matinee.client.calls`).
"""

import asyncio
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self, TypeVar, cast

import httpx

from matinee.client import calls
from matinee.client.calls import Call
from matinee.client.server_file import read_living
from matinee.errors import MatineeError
from matinee.settings.addresses import IDLE_S, is_inside
from matinee.settings.tree import Settings

Result = TypeVar("Result")

_EXIT_CODES = {"not_found": 6, "ambiguous_title": 6, "invalid": 2, "overloaded": 7, "too_many_requests": 7, "deadline": 7}
_API = "/v1/"
_EXAMPLE = "write it like http://127.0.0.1:8000"


class ServerError(MatineeError):
    """The server refused or could not answer: its own code and message, with the status of its response.

    Without one, the code is `timeout`, `unreachable` or `malformed`, or says what of the request can't be sent.
    """

    def __init__(
        self, message: str, code: str = "unavailable", *, status: int | None = None, candidates: list[dict[str, object]] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.candidates = candidates or []
        self.exit_code = _EXIT_CODES.get(code, 5)


class _Connection:
    """What both clients share. `setting`: the part of the settings that names the server, for messages.

    A proxy of the environment is asked for servers outside alone (`is_inside`), and never with `direct`, as is right for a server of this
    machine, whatever its address.
    """

    _client: httpx.Client | httpx.AsyncClient

    def __init__(self, url: str, timeout_s: float, direct: bool, setting: str, catalogue: str | None) -> None:
        self.url = url.rstrip("/")
        self.catalogue = catalogue
        self._timeout_s = timeout_s
        self._setting = setting
        # With a transport of its own a client takes no proxy, but still the certificates, from the environment.
        self._is_direct = direct or is_inside(self.url)

    @contextmanager
    def _explain_setup(self) -> Iterator[None]:
        """What can't be a URL, a key or a proxy."""
        try:
            yield
        except httpx.InvalidURL as error:
            named = f"{self._setting}.url " if self._setting else ""
            raise ServerError(f"{named}{self.url!r} is not the URL of a server ({error}): {_EXAMPLE}", "invalid") from None
        except UnicodeEncodeError:
            named = f"{self._setting}.key" if self._setting else "the API key"
            raise ServerError(f"{named} has characters that no key has: copy it again", "unauthorized") from None
        except (ImportError, ValueError) as error:
            raise ServerError(
                f"a proxy of the environment can't be used ({error}): set NO_PROXY for the server, or an http:// proxy in HTTP_PROXY, "
                "HTTPS_PROXY or ALL_PROXY",
                "invalid",
            ) from None

    def _request(self, call: Call[Result]) -> httpx.Request:
        params = {name: value for name, value in call.params.items() if value is not None}
        lines, headers = None, None
        if call.lines is not None:
            # Each gets a line end, where it has none.
            lines = (line if line.endswith(b"\n") else line + b"\n" for line in call.lines)
            headers = {"Content-Type": "application/x-ndjson"}
        return self._client.build_request(
            call.method, self._path(call), params=params or None, json=call.body, content=lines, headers=headers
        )

    def _path(self, call: Call[Result]) -> str:
        """Where the call goes: to the catalogue, where one was named."""
        if self.catalogue is None or not call.path.startswith(_API) or call.path.startswith(calls.CATALOGUES):
            return call.path
        return f"{calls.CATALOGUES}/{self.catalogue}/{call.path.removeprefix(_API)}"

    @contextmanager
    def _explain(self, path: str) -> Iterator[None]:
        """Why there is no response."""
        try:
            yield
        except (TimeoutError, httpx.TimeoutException):
            named = f" ({self._setting}.deadline_s)" if self._setting else ""
            raise ServerError(f"{self.url}{path} gave no answer within {self._timeout_s:g} s{named}", "timeout") from None
        except httpx.UnsupportedProtocol:
            raise ServerError(f"{self.url!r} is not the URL of a server: {_EXAMPLE}", "invalid") from None
        except httpx.LocalProtocolError as error:
            raise ServerError(f"the request to {self.url} can't be sent ({error}): check the API key", "unauthorized") from None
        except httpx.HTTPError as error:
            hint = f"does it run, and is {self._setting}.url right?" if self._setting else "is it still running?"
            raise ServerError(f"the server at {self.url} does not answer ({type(error).__name__}): {hint}", "unreachable") from error

    def _read(self, response: httpx.Response, call: Call[Result]) -> Result:
        try:
            content = response.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            named = f"{self._setting}.url" if self._setting else "the URL"
            raise ServerError(
                f"{self.url}{call.path} answered {response.status_code}, but not as a Matinee server does: check {named}", "malformed"
            )
        if response.is_error:
            raise ServerError(
                str(content.get("message", response.text)),
                str(content.get("code", "error")),
                status=response.status_code,
                candidates=content.get("candidates"),
            )
        # Not validated: the API answers as it is documented.
        return cast(Result, content)


class Client(_Connection):
    """A server at `url`; `key` goes into the Authorization header and nowhere else. `timeout_s`: for each pause in a request.

    `catalogue`: whose routes are asked; by default those of the server's default one.
    """

    _client: httpx.Client

    def __init__(
        self, url: str, *, key: str | None = None, timeout_s: float = 60, direct: bool = False, catalogue: str | None = None
    ) -> None:
        super().__init__(url, timeout_s, direct, "", catalogue)
        self._key = key
        limits = httpx.Limits(keepalive_expiry=IDLE_S)
        with self._explain_setup():
            transport = httpx.HTTPTransport(limits=limits) if self._is_direct else None
            self._client = httpx.Client(base_url=self.url, headers=_headers(key), timeout=timeout_s, limits=limits, transport=transport)
        # Closed with the last reference: no caller has to remember it.
        weakref.finalize(self, self._client.close)

    @classmethod
    def find_running(cls, settings: Settings, *, key: str | None = None) -> "Client | None":
        """The server that `server.json` names, None where there is none or it has died."""
        named = read_living(settings.server_file)
        if named is None:
            return None
        server = cls(named["url"], key=key, direct=True)
        try:
            server._client.get("/livez", timeout=5).raise_for_status()
        except httpx.HTTPError:
            return None
        return server

    @classmethod
    def find(cls, settings: Settings, url: str | None, key: str | None) -> "Client | None":
        """The server at `url`, else the one that runs here, if any."""
        return cls(url, key=key) if url else cls.find_running(settings, key=key)

    @classmethod
    def for_writing(cls, settings: Settings, url: str | None, key: str | None, catalogue: str | None = None) -> "Client":
        """The server that `find` finds. Raises `ServerError` where there is none, or where it has no such catalogue."""
        server = cls.find(settings, url, key)
        if server is None:
            raise ServerError(
                "no server runs here, and only a server writes items: start one with `python -m serve`, or name it with --url"
            )
        if url and catalogue is None:
            return server
        return server.require(settings.catalogue if catalogue is None else catalogue)

    def require(self, catalogue: str) -> "Client":
        """The same server, asked for a catalogue. Raises `ServerError` where it has none of this name."""
        server = self.of(catalogue)
        if server is None:
            raise self.absence(catalogue)
        return server

    def absence(self, catalogue: str) -> ServerError:
        """The error for a catalogue that the server does not have. It names those that it has."""
        try:
            known = ", ".join(row["name"] for row in self.send(calls.catalogues())["catalogues"])
        except ServerError:
            known = ""
        hint = f"use one of {known} (--catalogue, or MATINEE_CATALOGUE)" if known else "see `matinee catalogues list`"
        hint += f", or create it: matinee catalogues create {catalogue}"
        return ServerError(f"the server at {self.url} has no catalogue {catalogue!r}: {hint}", "not_found")

    def of(self, catalogue: str) -> "Client | None":
        """The same server, asked for a catalogue: by the plain routes where it is its default one. None where it has none of this name."""
        try:
            # It answers also where the index is out of reach.
            if self.send(calls.info())["catalogue"] == catalogue:
                return self
        except ServerError as error:
            # The key may be for another catalogue alone.
            if error.status != 403:
                raise
        try:
            self.send(calls.catalogue(catalogue))
        except ServerError as error:
            if error.status != 404:
                raise
            return None
        return Client(self.url, key=self._key, timeout_s=self._timeout_s, direct=self._is_direct, catalogue=catalogue)

    def send(self, call: Call[Result]) -> Result:
        """The response's JSON. Raises `ServerError`."""
        with self._explain(self._path(call)):
            response = self._client.send(self._request(call))
        return self._read(response, call)


class AsyncClient(_Connection):
    """The same, to be awaited; `timeout_s` is for a whole request. Keeps at most `connections` open."""

    _client: httpx.AsyncClient

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        timeout_s: float,
        direct: bool,
        connections: int,
        setting: str = "",
        catalogue: str | None = None,
    ) -> None:
        super().__init__(url, timeout_s, direct, setting, catalogue)
        limits = httpx.Limits(max_connections=connections, keepalive_expiry=IDLE_S)
        with self._explain_setup():
            transport = httpx.AsyncHTTPTransport(limits=limits) if self._is_direct else None
            self._client = httpx.AsyncClient(
                base_url=self.url, headers=_headers(key), timeout=timeout_s, limits=limits, transport=transport
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def send(self, call: Call[Result]) -> Result:
        """The response's JSON. Raises `ServerError`."""
        with self._explain(self._path(call)):
            # One deadline for the whole request: httpx's would be one for each of its phases.
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.send(self._request(call))
        return self._read(response, call)


def _headers(key: str | None) -> httpx.Headers:
    return httpx.Headers({"Authorization": f"Bearer {key}"} if key else {}, encoding="ascii")
