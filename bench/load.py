"""A load generator: raw HTTP/1.1 over kept connections, closed loop (each client waits for its answer) or open loop (a fixed rate).

    python -m bench.load http://127.0.0.1:8000 requests.jsonl --clients 32 --seconds 8
    python -m bench.load http://127.0.0.1:8000 requests.jsonl --rate 200 --seconds 8

`requests.jsonl` has one `{"method", "path", "body"}` a line; they are sent in turn. Open-loop latencies count from the moment that a
request was due, so that a stalled server can't hide behind a waiting client. Prints one JSON line. Runs in a process of its own.
"""

import argparse
import asyncio
import json
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import orjson
import uvloop


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


class Connection(asyncio.Protocol):
    """One kept connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiter: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) >= end + 4 + length and self._waiter is not None:
            del self._buffer[: end + 4 + length]
            waiter, self._waiter = self._waiter, None
            waiter.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(0)

    async def ask(self, request: bytes) -> int:
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter


def encoded(host: str, path: Path) -> list[bytes]:
    requests = []
    for line in path.read_bytes().splitlines():
        wanted = orjson.loads(line)
        body = b"" if wanted.get("body") is None else orjson.dumps(wanted["body"])
        start = f"{wanted['method']} {wanted['path']} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        requests.append(f"{start}content-length: {len(body)}\r\n\r\n".encode() + body)
    return requests


async def closed_loop(address: tuple[str, int], requests: list[bytes], clients: int, seconds: float, offset: int) -> Result:
    result, numbers = Result(), count(offset)
    loop = asyncio.get_running_loop()
    start = time.perf_counter()

    async def client() -> None:
        _, connection = await loop.create_connection(Connection, *address)
        while (begun := time.perf_counter()) - start < seconds:
            status = await connection.ask(requests[next(numbers) % len(requests)])
            result.latencies.append((time.perf_counter() - begun) * 1000)
            result.statuses[status] += 1
            if status == 0:
                _, connection = await loop.create_connection(Connection, *address)

    await asyncio.gather(*(client() for _ in range(clients)))
    result.seconds = time.perf_counter() - start
    return result


async def open_loop(address: tuple[str, int], requests: list[bytes], rate: float, seconds: float, offset: int) -> Result:
    result = Result()
    loop = asyncio.get_running_loop()
    idle: deque[Connection] = deque()
    tasks = []
    start = time.perf_counter()

    async def one(number: int, due: float) -> None:
        connection = idle.popleft() if idle else (await loop.create_connection(Connection, *address))[1]
        status = await connection.ask(requests[number % len(requests)])
        result.latencies.append((time.perf_counter() - due) * 1000)
        result.statuses[status] += 1
        if status:
            idle.append(connection)

    for number in range(int(rate * seconds)):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(offset + number, due)))
    await asyncio.gather(*tasks)
    result.seconds = time.perf_counter() - start
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("requests", type=Path)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--rate", type=float, help="requests a second: open loop")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--offset", type=int, default=0, help="first request of the file to send")
    args = parser.parse_args()
    parts = urlsplit(args.url)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    requests = encoded(parts.netloc, args.requests)
    if args.rate:
        result = uvloop.run(open_loop(address, requests, args.rate, args.seconds, args.offset))
    else:
        result = uvloop.run(closed_loop(address, requests, args.clients, args.seconds, args.offset))
    print(json.dumps(result.summary()))


if __name__ == "__main__":
    main()
