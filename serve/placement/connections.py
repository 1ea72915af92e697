"""The connections of the one process: how many there are, and how long a client may leave one waiting.

The limits of requests begin where a request is known. A client that never ends its headers, or never reads what was sent, is met here.
"""

import asyncio
import resource
from collections import Counter
from http import HTTPStatus
from typing import ClassVar

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from matinee.settings.serving import ServingSettings
from serve.api.admission import Admission
from serve.api.clients import ClientAddresses
from serve.placement.joined_write import join_writes


class Connections:
    """The open connections: at most `most`, and of one client address at most `share` of them."""

    def __init__(self, settings: ServingSettings, most: int) -> None:
        self.header_s, self.send_s = settings.limits.header_s, settings.deadline_s
        self._addresses = ClientAddresses(settings)
        self._most = most
        self._share = max(1, int(most * settings.limits.share))
        self._open: dict[asyncio.Protocol, str | None] = {}
        self._of_address: Counter[str] = Counter()
        # In the order in which they began to wait.
        self._waiting: dict[asyncio.Protocol, asyncio.Transport] = {}

    def enter(self, connection: asyncio.Protocol, peer: str | None) -> bool:
        """Count a new connection; False where it can't stay. Where all are open, the one that has waited longest for headers is closed."""
        address = self._addresses.find(peer, ())
        if address is not None and self._of_address[address] >= self._share:
            return False
        if len(self._open) >= self._most:
            longest = next(iter(self._waiting), None)
            if longest is None:
                return False
            self._waiting[longest].abort()
            self.leave(longest)
        self._open[connection] = address
        if address is not None:
            self._of_address[address] += 1
        return True

    def leave(self, connection: asyncio.Protocol) -> None:
        """Count a connection no more. It may have left before."""
        self._waiting.pop(connection, None)
        address = self._open.pop(connection, None)
        if address is not None:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    def wait(self, connection: asyncio.Protocol, transport: asyncio.Transport) -> None:
        """`connection` owes headers from now on."""
        if connection in self._open:
            self._waiting[connection] = transport

    def go_on(self, connection: asyncio.Protocol) -> None:
        """The headers of `connection` are complete."""
        self._waiting.pop(connection, None)


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, which closes a connection whose headers do not come in time, and one whose client does not read.

    While the gateway is full it refuses requests by itself: no app, no task, one write. It does so once for each time that it reads, and
    only once the client has the answer before. Other requests of the client go to the app, where they queue, and pause the reading: a
    client that sends thousands at once, or reads none of the answers, must not keep the loop or fill the memory.
    """

    open: ClassVar[Connections]
    admission: ClassVar[Admission]

    _headers_due: asyncio.TimerHandle | None = None
    _reading_due: asyncio.TimerHandle | None = None
    _refused = False
    _may_refuse = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self.open.enter(self, self.client[0] if self.client else None):
            transport.abort()
            return
        # The loop says `pause_writing` for whatever the client has left unread, not only for much of it.
        transport.set_write_buffer_limits(high=0)
        self._expect_headers(self.open.header_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open.leave(self)
        for timer in (self._headers_due, self._reading_due):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._may_refuse = True
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._refused = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
        self.open.go_on(self)
        # Responses go out in the order of their requests, so a response waits for the one before it.
        if (self.cycle is None or self.cycle.response_complete) and self._may_refuse and not self.transport.get_write_buffer_size():
            method, path = self.parser.get_method().decode("ascii"), self.url.split(b"?", 1)[0].decode("latin-1")
            if (refusal := self.admission.early(method, path, self.headers)) is not None:
                self._refuse(refusal, with_body=method != "HEAD")
                return
        super().on_headers_complete()
        join_writes(self.cycle)

    def _refuse(self, response: Response, *, with_body: bool) -> None:
        """Answer in place of the app. What is left of the request is read and dropped."""
        self._refused, self._may_refuse = True, False
        stays = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        headers = [*self.server_state.default_headers, *response.raw_headers, *([] if stays else [(b"connection", b"close")])]
        start = f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}\r\n".encode()
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(start + lines + b"\r\n" + (bytes(response.body) if with_body else b""))
        if not stays:
            self.transport.close()
        self.on_response_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        # The rest of a refused body may still drip in: only the next headers end this wait, and uvicorn's own ends at any byte.
        if not self.pipeline and not self.transport.is_closing():
            self._expect_headers(self.timeout_keep_alive + self.open.header_s)
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        # `close` would wait for the client to read.
        self._reading_due = self.loop.call_later(self.open.send_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._reading_due is not None:
            self._reading_due.cancel()
        super().resume_writing()

    def _expect_headers(self, seconds: float) -> None:
        self._headers_due = self.loop.call_later(seconds, self.transport.close)
        self.open.wait(self, self.transport)


def limited_protocol(settings: ServingSettings, admission: Admission) -> type[LimitedProtocol]:
    """The protocol of one server, with its connections counted together."""
    # The other half is for the index, the models, and connections to other servers.
    most = min(settings.limits.connections, _open_files() // 2)
    return type("ServerProtocol", (LimitedProtocol,), {"open": Connections(settings, most), "admission": admission})


def _open_files() -> int:
    """How many files this process may have open, after it has asked for all that it can get."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            # macOS says "no limit" and grants less.
            return soft
    return hard if hard != resource.RLIM_INFINITY else 2**31
