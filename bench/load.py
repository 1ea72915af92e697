"""A load generator: raw HTTP/1.1 over kept connections, closed loop (each client waits for its answer) or open loop (a fixed rate).

    python -m bench.load http://127.0.0.1:8000 requests.jsonl --clients 32 --seconds 8
    python -m bench.load http://127.0.0.1:8000 requests.jsonl --rate 200 --seconds 8

`requests.jsonl` has one `{"method", "path", "body"}` a line; they are sent in turn. Open-loop latencies count from the moment that a
request was due, so that a stalled server can't hide behind a waiting client. Prints one JSON line. Runs in a process of its own.

`--log FILE` writes each answer as a JSON line (`Answer`), at once. SIGTERM ends the load early; it waits for the answers under way.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import orjson
import uvloop

from matinee.cli.errors import run_main

NO_CONNECTION, NO_ANSWER = 0, -1
"""Statuses of requests that got none: the connection was refused or lost, and nothing came in time."""
FRESH_S = 2.0
"""How long an idle connection is used again: a server closes it after 5 s, maybe while a request is on its way."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of the log. `due_s` is of `time.monotonic()`, which all processes of a machine share; `ms` counts from the sending."""

    number: int
    due_s: float
    ms: float
    status: int
    retry_after: bool = False
    degraded: bool = False


@dataclass
class Result:
    """Latencies in ms of the answers, and how many had which status."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    def summary(self) -> dict[str, float | dict[str, int]]:
        ms = np.array(self.latencies or [float("nan")])
        return {
            "rps": round(len(self.latencies) / self.seconds, 1),
            "p50_ms": round(float(np.percentile(ms, 50)), 2),
            "p99_ms": round(float(np.percentile(ms, 99)), 2),
            "requests": len(self.latencies),
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
        }


class HttpConnection(asyncio.Protocol):
    """One kept connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiter: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None
        self.head = self.body = b""
        self.used_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head, start = bytes(self._buffer[:end]).lower(), end + 4
        at = head.find(b"content-length:")
        if at >= 0:
            size = int(head[at + 15 :].split(b"\r\n", 1)[0])
        else:
            # In chunks, as Ray's own error pages are: the last one is empty.
            last = self._buffer.find(b"\r\n0\r\n\r\n", start - 2)
            size = last + 7 - start if last >= 0 else len(self._buffer)
        if len(self._buffer) >= start + size and self._waiter is not None:
            self.head, self.body = head, bytes(self._buffer[start : start + size])
            self.used_s = time.monotonic()
            del self._buffer[: start + size]
            waiter, self._waiter = self._waiter, None
            if not waiter.done():
                waiter.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(NO_CONNECTION)

    @property
    def fresh(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and time.monotonic() - self.used_s < FRESH_S

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def ask(self, request: bytes) -> int:
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def answer(self, number: int, due_s: float, ms: float, status: int) -> Answer:
        """What the log says of the answer that came last."""
        head, body = (self.head, self.body) if status > 0 else (b"", b"")
        degraded = b'"degraded":[' in body and b'"degraded":[]' not in body
        return Answer(number, due_s, round(ms, 2), status, b"retry-after:" in head, degraded)


def encode_requests(host: str, path: Path) -> list[bytes]:
    requests = []
    for line in path.read_bytes().splitlines():
        request = orjson.loads(line)
        body = b"" if request.get("body") is None else orjson.dumps(request["body"])
        start = f"{request['method']} {request['path']} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        requests.append(f"{start}content-length: {len(body)}\r\n\r\n".encode() + body)
    return requests


async def closed_loop(
    address: tuple[str, int],
    requests: list[bytes],
    clients: int,
    seconds: float,
    offset: int,
    on_answer: Callable[[Answer], None] = lambda answer: None,
) -> Result:
    result, numbers = Result(), count(offset)
    loop = asyncio.get_running_loop()
    start, stop = time.monotonic(), stop_signal()

    async def client() -> None:
        _, connection = await loop.create_connection(HttpConnection, *address)
        while (sent := time.monotonic()) - start < seconds and not stop.is_set():
            status = await connection.ask(requests[(number := next(numbers)) % len(requests)])
            ms = (time.monotonic() - sent) * 1000
            result.latencies.append(ms)
            result.statuses[status] += 1
            on_answer(connection.answer(number, sent, ms, status))
            if status == NO_CONNECTION:
                _, connection = await loop.create_connection(HttpConnection, *address)

    await asyncio.gather(*(client() for _ in range(clients)))
    result.seconds = time.monotonic() - start
    return result


def stop_signal() -> asyncio.Event:
    """Set by SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return stop


@dataclass
class OpenLoop:
    """Requests at a fixed rate. `on_answer` gets each one; one that takes longer than `timeout_s` counts as `NO_ANSWER`."""

    address: tuple[str, int]
    requests: list[bytes]
    rate: float
    timeout_s: float | None = None
    on_answer: Callable[[Answer], None] = lambda answer: None
    _idle: list[HttpConnection] = field(default_factory=list)

    async def run(self, seconds: float, offset: int) -> Result:
        result, tasks = Result(), set()
        start, stop = time.monotonic(), stop_signal()
        for number in range(int(self.rate * seconds)):
            due = start + number / self.rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if stop.is_set():
                break
            task = asyncio.create_task(self._one(offset + number, due, result))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        result.seconds = time.monotonic() - start
        return result

    async def _one(self, number: int, due: float, result: Result) -> None:
        sent, connection, status = time.monotonic(), None, NO_CONNECTION
        with contextlib.suppress(OSError):
            try:
                async with asyncio.timeout(self.timeout_s):
                    connection = await self._connect()
                    status = await connection.ask(self.requests[number % len(self.requests)])
            except TimeoutError:
                status = NO_ANSWER
        now = time.monotonic()
        result.latencies.append((now - due) * 1000)
        result.statuses[status] += 1
        ms = (now - sent) * 1000
        self.on_answer(Answer(number, due, round(ms, 2), status) if connection is None else connection.answer(number, due, ms, status))
        if connection is not None:
            if status > 0:
                self._idle.append(connection)
            else:
                connection.close()

    async def _connect(self) -> HttpConnection:
        while self._idle:
            if (connection := self._idle.pop()).fresh:
                return connection
            connection.close()
        return (await asyncio.get_running_loop().create_connection(HttpConnection, *self.address))[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the server to load, http://HOST:PORT")
    parser.add_argument("requests", type=Path, help="JSONL of method, path and body")
    parser.add_argument("--clients", type=int, default=1, help="closed loop: clients, each of which waits for its answer")
    parser.add_argument("--rate", type=float, help="open loop: requests a second")
    parser.add_argument("--seconds", type=float, default=8, help="how many seconds to send requests")
    parser.add_argument("--offset", type=int, default=0, help="first request of the file to send")
    parser.add_argument("--timeout", type=float, help="open loop: seconds after which a request counts as unanswered")
    parser.add_argument("--log", type=Path, help="write each answer as a JSON line")
    args = parser.parse_args()
    parts = urlsplit(args.url)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    requests = encode_requests(parts.netloc, args.requests)
    with contextlib.ExitStack() as exits:
        on_answer: Callable[[Answer], None] = lambda answer: None  # noqa: E731
        if args.log:
            log = exits.enter_context(args.log.open("wb", buffering=0))
            on_answer = lambda answer: log.write(orjson.dumps(asdict(answer), option=orjson.OPT_APPEND_NEWLINE))  # noqa: E731
        if args.rate:
            load = OpenLoop(address, requests, args.rate, args.timeout, on_answer).run(args.seconds, args.offset)
        else:
            load = closed_loop(address, requests, args.clients, args.seconds, args.offset, on_answer)
        result = uvloop.run(load)
    print(json.dumps(result.summary()))


if __name__ == "__main__":
    run_main(main)
