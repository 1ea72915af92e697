"""A response's head and the first of its body in one write: each write is a packet, and each packet wakes the client."""

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What uvicorn may write before the head."""


def join_writes(cycle: RequestResponseCycle) -> None:
    """From now on the head of this response waits for its body, as ASGI asks of a server."""
    cycle.transport = cast(asyncio.Transport, _JoinedWrite(cycle))


class _JoinedWrite:
    """Stands for the transport of one response."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._transport = cycle.transport
        self._on_response = cycle.on_response
        self._head: bytes | None = None
        cycle.on_response = self._complete

    def write(self, data: bytes) -> None:
        if self._head is None and data != _CONTINUE:
            self._head = data
        elif self._head:
            self._transport.writelines((self._head, data))
            self._head = b""
        else:
            self._transport.write(data)

    def _write_head(self) -> None:
        """Where no body follows."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def _complete(self) -> None:
        self._write_head()
        self._on_response()

    def close(self) -> None:
        self._write_head()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
