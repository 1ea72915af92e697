"""What uvicorn writes of a response, as a client's transport gets it."""

import asyncio
from collections.abc import Iterable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serve.placement.joined_write import join_writes

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}


class Written(asyncio.Transport):
    """Keeps what each write had."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def pause_reading(self) -> None:
        """It has read all that will come."""

    resume_reading = pause_reading

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Joined(HttpToolsProtocol):
    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        join_writes(self.cycle)


async def written(app: Any, sent: bytes = GET) -> Written:
    """What goes out until all requests have ended."""
    config = uvicorn.Config(app, log_config=None, lifespan="off")
    config.load()
    state, transport = ServerState(), Written()
    protocol = Joined(config, state, {})
    protocol.connection_made(transport)
    protocol.data_received(sent)
    while state.tasks:
        await asyncio.gather(*state.tasks, return_exceptions=True)
    protocol.connection_lost(ConnectionError())
    return transport


def answering(*bodies: bytes) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["headers"][0] == (b"expect", b"100-continue"):
            await receive()
        await send(START)
        for number, body in enumerate(bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    return app


async def test_head_and_body_are_one_write_and_the_rest_is_others() -> None:
    [write] = (await written(answering(b"body"))).writes
    assert write.startswith(b"HTTP/1.1 200 OK\r\n")
    assert write.endswith(b"\r\n\r\nbody")
    first, *others = (await written(answering(b"b", b"od", b"y"))).writes
    assert first.endswith(b"\r\n\r\nb")
    assert others == [b"od", b"y"]


async def test_a_head_without_a_body_goes_out_alone_and_in_its_turn() -> None:
    head = GET.replace(b"GET", b"HEAD")
    first, second, third = (await written(answering(b"body"), head + head + GET)).writes
    assert first.endswith(b"\r\n\r\n")
    assert second == first
    assert third.endswith(b"\r\n\r\nbody")


async def test_a_connection_that_ends_with_its_response_has_all_of_it() -> None:
    closing = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    for sent, end in ((closing, b"body"), (closing.replace(b"GET", b"HEAD"), b"\r\n\r\n")):
        transport = await written(answering(b"body"), sent)
        assert len(transport.writes) == 1
        assert transport.writes[0].endswith(end)
        assert transport.closed


async def test_a_client_that_asks_whether_to_send_its_body_is_told_first() -> None:
    asks = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
    first, second = (await written(answering(b"body"), asks)).writes
    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert second.endswith(b"\r\n\r\nbody")


async def test_an_app_that_breaks_off_closes_the_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        raise RuntimeError("broken")

    transport = await written(app)
    assert transport.closed
    assert len(transport.writes) == 1
