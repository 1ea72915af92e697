"""What being watched costs, in requests a second: a server that records our metrics beside one that does not, and the probe.

    python -m bench.watching --rounds 8 --seconds 4 --out watching.json

Serves the bundled films, without an enhancer and without caches. The servers take turns under the same load, in an order that turns
round each time, so that what else the machine does falls on all alike; a cost is the median of the ratios within a round. In the probe's
turns it begins a round of its own (by default it does so every 300 s); in the other turns it is stopped. Nobody scrapes.
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

from bench.serve import load, matinee_server, requests_of
from matinee import demo

BARE, METRICS, PROBED = "no metrics", "metrics", "metrics, probe"
CASES = ("similar", "hybrid")
SETTINGS = {
    "MATINEE_CATALOGUE": "demo",
    "MATINEE_ENHANCER__ENABLED": "0",
    "MATINEE_EMBEDDER__CACHE_ENTRIES": "0",
    "MATINEE_SERVING__FAST": "1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4, help="of one turn")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    os.environ |= SETTINGS
    with tempfile.TemporaryDirectory(prefix="matinee-bench-") as folder, contextlib.ExitStack() as exits:
        bare, watched = _homes(Path(folder))
        off, _ = exits.enter_context(matinee_server({"MATINEE_HOME": str(bare), "MATINEE_SERVING__METRICS": "0"}))
        on, ids = exits.enter_context(matinee_server({"MATINEE_HOME": str(watched)}))
        probe = exits.enter_context(_probe(on, watched, args.seconds))
        queries = Path(demo.__file__).parent / "queries" / "queries.jsonl"
        rows = []
        for case in CASES:
            requests = requests_of(case, False, ids, [queries], watched)
            assert requests is not None
            for url in (off, on):
                load(url, requests, clients=args.clients, seconds=3)
            for round in range(args.rounds):
                turns = {BARE: off, METRICS: on, PROBED: on}
                for variant in list(turns) if round % 2 else reversed(turns):
                    with _asking(probe) if variant == PROBED else contextlib.nullcontext():
                        found = load(turns[variant], requests, clients=args.clients, seconds=args.seconds)
                    rows.append({"case": case, "round": round, "variant": variant, **found})
                    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(table(rows))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1))


def _homes(folder: Path) -> tuple[Path, Path]:
    """Two homes with the same index: the embedded engine allows one process each."""
    homes = folder / "bare", folder / "watched"
    models = Path("~/.matinee/models").expanduser()
    for home in homes:
        home.mkdir()
        if models.exists():
            (home / "models").symlink_to(models)
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
def _asking(probe: "subprocess.Popen[bytes]") -> Iterator[None]:
    probe.send_signal(signal.SIGCONT)
    try:
        yield
    finally:
        probe.send_signal(signal.SIGSTOP)


def table(rows: list[dict[str, Any]]) -> str:
    """Median requests a second of each variant, and of its ratio to the one before it within a round, with the quartiles."""
    lines = ["| case | variant | requests/s | p50 ms | p99 ms | of the row above |", "| --- | --- | --- | --- | --- | --- |"]
    for case in CASES:
        before: list[float] = []
        for variant in (BARE, METRICS, PROBED):
            turns = sorted((row for row in rows if (row["case"], row["variant"]) == (case, variant)), key=lambda row: row["round"])
            rates, p50, p99 = ([turn[key] for turn in turns] for key in ("rps", "p50_ms", "p99_ms"))
            ratios = [rate / other for rate, other in zip(rates, before, strict=True)] if before else []
            medians = " | ".join(f"{statistics.median(values):.{digits}f}" for values, digits in ((rates, 0), (p50, 1), (p99, 1)))
            lines.append(f"| {case} | {variant} | {medians} | {_spread(ratios)} |")
            before = rates
    return "\n".join(lines)


def _spread(ratios: list[float]) -> str:
    if len(ratios) < 2:
        return ""
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
