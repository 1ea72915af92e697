"""What people ask a server of films, as request lines for `bench.load`; and the load itself, as a process that logs each answer."""

import contextlib
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from bench.load import Answer
from matinee.client import calls
from matinee.client.http import Client

TrafficLine = dict[str, Any]
_SEARCHES = 500
TIMEOUT_S = 20.0
"""Above the server's own deadline: a request that it answers with 504 counts as answered."""


def reads(url: str, count: int = 500) -> list[TrafficLine]:
    """Searches, recommendations and look-ups over the server's own items: `count` lines in an order fixed by a seed."""
    items = Client(url, direct=True).send(calls.items(min(count, 1000)))["items"]
    lines: list[TrafficLine] = []
    for n in range(count):
        stored, other = items[n % len(items)], items[(n * 7 + 3) % len(items)]
        text = (stored["item"].get("overview") or stored["item"]["title"])[:80]
        lines.append(
            (
                _post("/v1/search", {"text": text}),
                _post("/v1/search", {"text": text, "mode": "dense"}),
                _post("/v1/recommend", {"likes": [stored["id"], other["id"]], "text": text}),
                {"method": "GET", "path": f"/v1/items/{stored['id']}/similar"},
                {"method": "GET", "path": f"/v1/items?q={quote(other['item']['title'][:3])}"},
            )[n % 5]
        )
    random.Random(0).shuffle(lines)
    return lines


def searches(url: str) -> list[TrafficLine]:
    """Text searches alone: each passes through every part but the enhancer."""
    return [line for line in reads(url, 5 * _SEARCHES) if line["path"] == "/v1/search" and "mode" not in line["body"]][:_SEARCHES]


def write(number: int) -> TrafficLine:
    """An item that replaces the one of the same number."""
    item = {"id": f"bench-{number}", "kind": "film", "title": f"The Bench {number}", "year": 2020, "overview": "A bench stands in a park."}
    return {"method": "PUT", "path": "/v1/items", "body": {"items": [item]}}


def describe(number: int) -> TrafficLine:
    """A recommendation for which the enhancer has to describe an item that no cache has."""
    item = {"kind": "film", "title": f"Cold {number}", "year": 2021, "genres": ["Drama"], "overview": "A cold case is opened again."}
    return _post("/v1/recommend", {"likes": [{"item": item}], "enhance": True})


def _post(path: str, body: dict[str, Any]) -> TrafficLine:
    return {"method": "POST", "path": path, "body": body}


def write_lines(lines: list[TrafficLine], path: Path) -> Path:
    """`path`, as `bench.load` reads it."""
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    return path


@dataclass
class Traffic:
    """A load under way, and its log."""

    log: Path
    process: "subprocess.Popen[str]"
    summary: dict[str, Any] = field(default_factory=dict)
    _answers: list[Answer] = field(default_factory=list)
    _read: int = 0

    def answers(self) -> list[Answer]:
        """What has been answered so far, in the order of the answers."""
        with self.log.open("rb") as file:
            file.seek(self._read)
            # The last line may still be under way.
            *lines, _ = file.read().split(b"\n")
        self._answers += [Answer(**orjson.loads(line)) for line in lines]
        self._read += sum(len(line) + 1 for line in lines)
        return self._answers

    def end(self) -> None:
        """No further requests. Does not wait for those under way."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """No further requests; those under way are answered first."""
        if not self.summary:
            self.end()
            out, _ = self.process.communicate()
            self.summary |= json.loads(out)


@contextmanager
def traffic(url: str, lines: list[TrafficLine], folder: Path, name: str, *, rate: float, seconds: float = 1e6) -> Iterator[Traffic]:
    """`rate` requests a second until the end of the `with`, or for `seconds`."""
    requests, log = write_lines(lines, folder / f"{name}.requests.jsonl"), folder / f"{name}.answers.jsonl"
    log.write_bytes(b"")
    command = [sys.executable, "-m", "bench.load", url, str(requests), "--rate", str(rate), "--seconds", str(seconds)]
    command += ["--timeout", str(TIMEOUT_S), "--log", str(log)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    under_way = Traffic(log, process)
    try:
        yield under_way
    finally:
        under_way.stop()
