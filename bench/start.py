"""How long does a start take, and how much memory has an idle server?

    python -m bench.start --rounds 5
    python -m bench.start --rounds 5 --beside ../before      # in turns with the code of another checkout

Serves the bundled films (or a copy of the index in `--home`) with default settings. A start is warm: one before the first round is not
counted. Measured are the seconds from the command to the first answer of `similar` and of a text search, the CPU time of all processes
until then, and their PSS once nothing has been asked for `--idle` seconds. Prints a table with the median, the least and the greatest.
"""

import argparse
import http.client
import json
import os
import statistics
import sys
import time
from pathlib import Path
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]

from bench.local_server import BenchError, LocalServer, temporary_home
from bench.tables import print_aligned
from matinee.cli.errors import run_main

ITEMS = ("GET", "/v1/items?limit=1", None)
TEXT = ("POST", "/v1/search", json.dumps({"text": "a heist inside dreams", "k": 5}))
FIGURES = ("first similar, s", "first text search, s", "CPU, s", "PSS, MB")
POLL_S = 0.02
LIMIT_S = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measured starts of each checkout")
    parser.add_argument("--idle", type=float, default=5, help="seconds without a request before memory is measured")
    parser.add_argument("--placement", choices=["process", "ray"], default="process", help="one process, or Ray Serve")
    parser.add_argument("--beside", type=Path, help="the folder of another checkout, whose code takes turns with this one's")
    parser.add_argument("--home", type=Path, help="serve a copy of this home's index instead of the bundled films")
    args = parser.parse_args()
    codes = {"this": Path.cwd()} | ({"beside": args.beside.resolve()} if args.beside else {})
    rows: list[dict[str, object]] = []
    with temporary_home(args.home) as home:
        for turn in range(-1, args.rounds):
            for code in list(codes) if turn % 2 else reversed(codes):
                row = {"code": code, "round": turn} | _start(home, codes[code], args.placement, args.idle)
                print(json.dumps(row), file=sys.stderr, flush=True)
                if turn >= 0:
                    rows.append(row)
    _print(rows)


def _start(home: Path, code: Path, placement: str, idle_s: float) -> dict[str, float]:
    # The folder where this runs would come first.
    path = {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
    server = LocalServer(home, path | {"MATINEE_SERVING__PLACEMENT": placement})
    begun = time.perf_counter()
    server.start()
    try:
        _, items = _wait_answer(server, *ITEMS)
        similar_s = _wait_answer(server, "GET", similar_path(items), None)[0] - begun
        text_s = _wait_answer(server, *TEXT)[0] - begun
        cpu_s = sum(_cpu_s(process) for _, process in server.processes())
        time.sleep(idle_s)
        pss = sum(process.memory_full_info().pss for _, process in server.processes())
    finally:
        server.stop()
    return dict(zip(FIGURES, (round(similar_s, 2), round(text_s, 2), round(cpu_s, 2), round(pss / 1e6, 1)), strict=True))


def similar_path(items: bytes) -> str:
    """What to ask for the items that are similar to the first of a list. Raises `BenchError` where the index is empty."""
    listed = json.loads(items)["items"]
    if not listed:
        raise BenchError("the index has no items: ingest some first")
    return f"/v1/items/{quote(listed[0]['id'], safe='')}/similar?k=5"


def _wait_answer(server: LocalServer, method: str, path: str, body: str | None) -> tuple[float, bytes]:
    """The time at which the request got its first 200, and the answer. Raises `BenchError` where the server ends, or takes too long."""
    end = time.perf_counter() + LIMIT_S
    while time.perf_counter() < end and server.process is not None and server.process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status == 200:
                return time.perf_counter(), response.read()
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(POLL_S)
    raise BenchError(f"the server did not answer {path}:\n{server.log.read_text(errors='replace')[-3000:]}")


def _cpu_s(process: psutil.Process) -> float:
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.Error:
        return 0.0


def spread(values: list[float]) -> str:
    """Median, least and greatest."""
    return f"{statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


def _print(rows: list[dict[str, object]]) -> None:
    codes = sorted({str(row["code"]) for row in rows}, reverse=True)
    spreads = ((code, *(spread([float(str(row[of])) for row in rows if row["code"] == code]) for of in FIGURES)) for code in codes)
    print_aligned(("code", *FIGURES), spreads, width=140)
    print(f"{len(rows)} starts on {os.cpu_count()} cores")


if __name__ == "__main__":
    run_main(main)
