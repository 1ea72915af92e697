"""What being watched costs: a server that records our metrics beside one that does not, and the probe.

    python -m bench.watching --rounds 8 --seconds 4 --out watching.json

Serves the bundled films, without an enhancer and without caches. The servers take turns under the same load, in an order that turns
round each time, so that what else the machine does falls on all alike; a cost is the median of the ratios within a round: of requests a
second, and of CPU time a request, of all the server's processes, which other work disturbs less. In the probe's turns it begins a round of
its own (by default it does so every 300 s); in the other turns it is stopped. Nobody scrapes. What one round takes is measured too, on the
server when nobody else asks: CPU time of server and probe, less that of the same server at rest for as long.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from bench.local_server import share_models
from bench.serve import load, matinee_server, requests_of
from bench.tables import markdown
from matinee import demo
from matinee.cli.errors import run_main
from matinee.settings.serving import ProbeSettings

BARE, METRICS, PROBED = "no metrics", "metrics", "metrics, probe"
CASES = ("similar", "hybrid")
_PROBE_ROUNDS = 5
SETTINGS = {
    "MATINEE_CATALOGUE": "demo",
    "MATINEE_ENHANCER__ENABLED": "0",
    "MATINEE_EMBEDDER__CACHE_ENTRIES": "0",
    "MATINEE_SERVING__FAST": "1",
    # Ray's default of 15 would let the load generator and the probe go first.
    "RAY_worker_niceness": "0",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="cases to measure; by default all")
    parser.add_argument("--rounds", type=int, default=8, help="rounds, in each of which every case has a turn")
    parser.add_argument("--seconds", type=float, default=4, help="seconds of load in each turn")
    parser.add_argument("--clients", type=int, default=8, help="clients that send requests at the same time")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    os.environ |= SETTINGS
    with tempfile.TemporaryDirectory(prefix="matinee-bench-") as folder, contextlib.ExitStack() as exits:
        bare, watched = _homes(Path(folder))
        off, _ = exits.enter_context(matinee_server({"MATINEE_HOME": str(bare), "MATINEE_SERVING__METRICS": "0"}))
        on, ids = exits.enter_context(matinee_server({"MATINEE_HOME": str(watched)}))
        probe = exits.enter_context(_probe(on, watched, args.seconds))
        queries = Path(demo.__file__).parent / "queries" / "queries.jsonl"
        turns = {BARE: (off, _family(bare)), METRICS: (on, _family(watched)), PROBED: (on, _family(watched))}
        each = one_round(probe, watched)
        rows = []
        for case in args.cases:
            requests = requests_of(case, False, ids, [queries], watched)
            assert requests is not None
            for url in (off, on):
                load(url, requests, clients=args.clients, seconds=3)
            for turn in range(args.rounds):
                for variant in list(turns) if turn % 2 else reversed(turns):
                    url, family = turns[variant]
                    before = _cpu_ms(family)
                    with _probing(probe) if variant == PROBED else contextlib.nullcontext():
                        result = load(url, requests, clients=args.clients, seconds=args.seconds)
                    result["cpu_ms"] = round((_cpu_ms(family) - before) / result["requests"], 3)
                    rows.append({"case": case, "round": turn, "variant": variant, **result})
                    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(table(rows))
    print(
        f"\none round of the probe: {each['cpu_s']:.2f} CPU seconds (median of {len(each['rounds'])}), "
        f"each {ProbeSettings().interval_s:.0f} s: {each['share']:.2%} of this machine's {os.cpu_count()} cores"
    )
    if args.out:
        args.out.write_text(json.dumps({"turns": rows, "round": each}, indent=1))


def _homes(folder: Path) -> tuple[Path, Path]:
    """Two homes with the same index: the embedded engine allows one process each."""
    homes = folder / "bare", folder / "watched"
    for home in homes:
        home.mkdir()
        share_models(home)
    subprocess.run([sys.executable, "-m", "train.ingest", "--demo"], check=True, env=os.environ | {"MATINEE_HOME": str(homes[0])})
    shutil.copytree(homes[0] / "index", homes[1] / "index")
    return homes


@contextlib.contextmanager
def _probe(url: str, home: Path, interval_s: float) -> Iterator["subprocess.Popen[bytes]"]:
    """A probe that is stopped, but for its turns."""
    environment = {"MATINEE_HOME": str(home), "MATINEE_PROBE__INTERVAL_S": str(interval_s), "MATINEE_PROBE__DEADLINE_S": str(interval_s)}
    command = [sys.executable, "-m", "serve.probe", "--url", url, "--metrics-port", "0"]
    probe = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        while not (home / "probe.json").exists():
            if probe.poll() is not None:
                raise SystemExit("the probe did not start")
            time.sleep(0.1)
        probe.send_signal(signal.SIGSTOP)
        yield probe
    finally:
        probe.send_signal(signal.SIGCONT)
        probe.terminate()
        probe.wait(30)


@contextlib.contextmanager
def _probing(probe: "subprocess.Popen[bytes]") -> Iterator[None]:
    probe.send_signal(signal.SIGCONT)
    try:
        yield
    finally:
        probe.send_signal(signal.SIGSTOP)


def one_round(probe: "subprocess.Popen[bytes]", home: Path) -> dict[str, Any]:
    """CPU seconds of a round, of the server and the probe together, and its share of all cores at the default interval."""
    family = [*_family(home), psutil.Process(probe.pid)]
    took = []
    for _ in range(_PROBE_ROUNDS):
        with _probing(probe):
            _wait_round(home)
            start, before = time.perf_counter(), _cpu_ms(family)
            _wait_round(home)
            busy, seconds = _cpu_ms(family) - before, time.perf_counter() - start
        before = _cpu_ms(family)
        time.sleep(seconds)
        took.append((busy - (_cpu_ms(family) - before)) / 1000)
    middle = statistics.median(took)
    return {"rounds": took, "cpu_s": middle, "share": middle / ProbeSettings().interval_s / (os.cpu_count() or 1)}


def _wait_round(home: Path) -> None:
    """Waits for the end of the probe's round, or of the next one."""
    before = _rounds(home)
    while _rounds(home) == before:
        time.sleep(0.2)


def _rounds(home: Path) -> float:
    """How many rounds the probe has ended."""
    text = httpx.get(json.loads((home / "probe.json").read_text(encoding="utf-8"))["metrics"], timeout=10, trust_env=False).text
    return sum(s.value for family in text_string_to_metric_families(text) for s in family.samples if s.name == "matinee_probe_rounds_total")


def _family(home: Path) -> list[psutil.Process]:
    """The server's processes, Ray's among them."""
    server = psutil.Process(json.loads((home / "server.json").read_text(encoding="utf-8"))["pid"])
    return [server, *server.children(recursive=True)]


def _cpu_ms(family: list[psutil.Process]) -> float:
    return float(1000 * sum(times.user + times.system for times in (process.cpu_times() for process in family if process.is_running())))


def table(rows: list[dict[str, Any]]) -> str:
    """Medians of each variant, and of its ratios to the one before it within a round, with their quartiles."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        before: dict[str, list[float]] = {}
        for variant in (BARE, METRICS, PROBED):
            turns = sorted((row for row in rows if (row["case"], row["variant"]) == (case, variant)), key=lambda row: row["round"])
            now = {key: [turn[key] for turn in turns] for key in ("rps", "cpu_ms")}
            cells = [cell for key in now for cell in (f"{statistics.median(now[key]):.3g}", _spread(now[key], before.get(key, [])))]
            lines.append((case, variant, *cells))
            before = now
    return markdown(("case", "variant", "requests/s", "of the row above", "CPU ms a request", "of the row above"), lines)


def _spread(now: list[float], before: list[float]) -> str:
    ratios = [a / b for a, b in zip(now, before, strict=False)]
    if len(ratios) < 2:
        return ""
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    run_main(main)
