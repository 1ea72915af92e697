"""How much CPU does a request take, and which part of the code takes it?

    python -m bench.cpu --home HOME
    python -m bench.cpu --home HOME --beside ../before --placement ray

Serves a copy of the index in `--home`, or the bundled films, without the caches that would answer for a model. Each case is loaded by
`--clients` clients, twice: once to count the CPU time of each process and thread, and once beside py-spy, which says where the Python
threads spend it. Prints core-milliseconds a request: CPU time divided by requests. A sample belongs to the innermost function that is of a
part in `PARTS`, so a call of a library counts for the code that made it, unless the library is a part itself.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]

from bench.local_server import BenchError, LocalServer, temporary_home
from bench.serve import load, matinee_lines
from bench.tables import print_aligned
from matinee.cli.errors import run_main
from matinee.client import calls
from matinee.client.http import Client

PARTS = {
    "encoder": r"matinee/(?:models/)?(?:embedder|encoder\w*|onnx\w*|bm25|fastest)\.py|onnxruntime|sentence_transformers|/torch/|tokenizers",
    "index": r"matinee/index|qdrant",
    "ranking": r"matinee/recommend|matinee/(?:ranking|titles|reasons|recommender)\.py",
    "metrics, logs, traces": r"telemetry|prometheus_client|logging/|opentelemetry|serve/(?:metrics|tracing|logs)\.py",
    "validation": r"pydantic|matinee/filters|schemas?\.py",
    "batches and hops": r"serve/graph/(?:microbatch|hops|wire|clients|handles|in_process|ranking_groups)|coalesce|lanes\.py",
    "Ray": r"/ray/",
    "routes": r"serve/api|fastapi|starlette",
    "graph": r"serve/|matinee/",
    "HTTP and event loop": r"uvicorn|uvloop|httptools|h11|asyncio|selectors\.py|anyio",
}
"""A part -> what the file of its functions has in its path. The first that matches a file counts."""
NATIVE = "threads without Python (of the encoder)"
CASES = ("similar", "dense", "hybrid")
WITHOUT_CACHES = {
    "MATINEE_EMBEDDER__CACHE_ENTRIES": "0",
    "MATINEE_ENHANCER__CACHE_ENTRIES": "0",
    "MATINEE_ENHANCER__ENABLED": "false",
}
_FRAME = re.compile(r"\S+ \((?P<file>[^)]*?)(?::\d+)?\)$")
_THREAD = re.compile(r"thread \((?P<id>0x[0-9A-Fa-f]+|\d+)\)(?:: (?P<name>.*))?")


class CaseLoad(NamedTuple):
    """How a case is loaded, each time."""

    clients: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="serve a copy of this home's index instead of the bundled films")
    parser.add_argument("--queries", type=Path, nargs="+", help="JSONL files of query texts; by default, texts of the items")
    parser.add_argument("--beside", type=Path, help="the folder of another checkout, which is measured after this one")
    parser.add_argument("--placement", choices=["process", "ray"], default="process", help="one process, or Ray Serve")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="requests to measure; by default all")
    parser.add_argument("--clients", type=int, default=8, help="clients, each of which waits for its answer")
    parser.add_argument("--seconds", type=float, default=8, help="seconds of each of the two loads of a case")
    args = parser.parse_args()
    codes = {"this": Path.cwd()} | ({"beside": args.beside.resolve()} if args.beside else {})
    with temporary_home(args.home) as home:
        for code, folder in codes.items():
            costs = _costs(home, folder, args.placement, args.cases, args.queries, CaseLoad(args.clients, args.seconds))
            print(f"\n{code}, placement {args.placement}: core-milliseconds a request")
            print_aligned(("part", *costs), _rows(costs), width=140)


def _costs(
    home: Path, code: Path, placement: str, cases: list[str], queries: list[Path] | None, one: CaseLoad
) -> dict[str, dict[str, float]]:
    """Core-milliseconds of a request by part, for each case."""
    path = {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
    server = LocalServer(home, path | WITHOUT_CACHES | {"MATINEE_SERVING__PLACEMENT": placement})
    server.start()
    try:
        server.wait_ready()
        costs = {}
        for case in cases:
            requests = _requests(case, server.url, queries, home)
            load(server.url, requests, clients=one.clients, seconds=3, offset=0)
            costs[case] = _measure(server, requests, one)
            print(json.dumps({"code": str(code), "case": case, **costs[case]}), file=sys.stderr, flush=True)
        return costs
    finally:
        server.stop()


def _requests(case: str, url: str, queries: list[Path] | None, home: Path) -> Path:
    items = Client(url, direct=True).send(calls.items(1000))["items"]
    texts = [json.loads(line)["text"] for path in queries or () for line in path.read_text(encoding="utf-8").splitlines()]
    texts = texts or [str(entry["item"].get("overview") or entry["item"]["title"])[:80] for entry in items]
    path = home / f"requests-{case}.jsonl"
    path.write_text("\n".join(map(json.dumps, matinee_lines(case, [entry["id"] for entry in items], texts))), encoding="utf-8")
    return path


def _measure(server: LocalServer, requests: Path, one: CaseLoad) -> dict[str, float]:
    before = _cpu_s(server)
    answered = int(load(server.url, requests, offset=1000, **one._asdict())["requests"])
    spent = {thread: after - before.get(thread, 0.0) for thread, after in _cpu_s(server).items()}
    with tempfile.TemporaryDirectory() as folder:
        spies = _spies(server, Path(folder), one.seconds)
        load(server.url, requests, offset=1000, **one._asdict())
        for spy in spies.values():
            spy.wait(one.seconds + 60)
        shares = {pid: shares_by_thread((Path(folder) / str(pid)).read_text(encoding="utf-8")) for pid in spies}
    costs: dict[str, float] = defaultdict(float)
    for (part, pid, thread), cpu_s in spent.items():
        shared = shares.get(pid, {}).get(thread)
        own = "" if part == "server" else f"{part}: "
        if pid not in shares:
            costs[part] += cpu_s
        else:
            for name, share in (shared or {NATIVE: 1.0}).items():
                costs[own + name] += cpu_s * share
    return {part: round(1000 * cpu_s / answered, 3) for part, cpu_s in costs.items()}


def _cpu_s(server: LocalServer) -> dict[tuple[str, int, int], float]:
    """CPU seconds of each thread, by its part, process and id."""
    used: dict[tuple[str, int, int], float] = {}
    for part, process in server.processes():
        with suppress(psutil.Error):
            used |= {(part, process.pid, thread.id): thread.user_time + thread.system_time for thread in process.threads()}
    return used


def _spies(server: LocalServer, folder: Path, seconds: float) -> dict[int, "subprocess.Popen[bytes]"]:
    """py-spy on each process of ours that runs Python."""
    spies = {}
    for part, process in server.processes():
        if part in ("server", "gateway", "retriever", "embedder", "proxy"):
            words = ["--duration", str(int(seconds)), "--rate", "100", "--format", "raw", "--threads", "--full-filenames", "--nolineno"]
            command = [str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(process.pid), *words]
            out = str(folder / str(process.pid))
            spies[process.pid] = subprocess.Popen([*command, "--output", out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not spies:
        raise BenchError("the server has no process to look at")
    return spies


def shares_by_thread(stacks: str) -> dict[int, dict[str, float]]:
    """The share of each part in the time of each thread, by the system's id of the thread.

    `stacks` is py-spy's raw format: frames from the outermost to the innermost, separated by `;`, and a number of samples.
    """
    samples: dict[int, Counter[str]] = defaultdict(Counter)
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        named = next((match for frame in frames if (match := _THREAD.search(frame))), None)
        if named is not None and count.isdecimal():
            samples[int(named["id"], 0)][part_of(frames)] += int(count)
    return {thread: {part: count / counts.total() for part, count in counts.items()} for thread, counts in samples.items()}


def part_of(frames: list[str]) -> str:
    """The part of the innermost function that is of one."""
    for frame in reversed(frames):
        match = _FRAME.search(frame)
        for part, pattern in PARTS.items():
            if match and re.search(pattern, match["file"]):
                return part
    return "other"


def _rows(costs: dict[str, dict[str, float]]) -> Iterator[tuple[str, ...]]:
    most = {part: max(of.get(part, 0.0) for of in costs.values()) for part in dict.fromkeys(part for of in costs.values() for part in of)}
    for part in sorted(most, key=most.__getitem__, reverse=True):
        if most[part] >= 0.005:
            yield part, *(f"{of.get(part, 0.0):.2f}" for of in costs.values())
    yield "all", *(f"{sum(of.values()):.2f}" for of in costs.values())


if __name__ == "__main__":
    run_main(main)
