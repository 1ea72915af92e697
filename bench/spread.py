"""Items a second of an ingest on Ray Data with one and with two workers, against the loop of one process, and what a killed worker costs.

    python -m bench.spread --items 1000 3000 --out spread.json

Each figure is of whole runs of `python -m train.ingest` in a new home, on the bundled films with numbers in their titles. Two sizes tell
what an item costs from what a start does: the rate is of the items between them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from matinee import demo
from matinee.catalogue.reader import read_items
from matinee.cli.errors import run_main
from matinee.files import write_jsonl
from matinee.settings.load import load_settings

ENGINES: dict[str, list[str]] = {
    "one process": ["--engine", "process"],
    "Ray, 1 worker": ["--engine", "ray", "--workers", "1", "--threads", "1"],
    "Ray, 2 workers": ["--engine", "ray", "--workers", "2", "--threads", "1"],
}


def write_catalogue(path: Path, count: int) -> Path:
    films = list(read_items(str(demo.FILMS)))
    rounds = ((number, film, number // len(films)) for number, film in zip(range(count), cycle(films), strict=False))
    facts = (film.facts() | {"id": str(number), "title": f"{film.title} {turn}"} for number, film, turn in rounds)
    write_jsonl(path, ({name: value for name, value in row.items() if name != "identity"} for row in facts))
    return path


def ingest(catalogue: Path, options: list[str], *, kill: bool = False) -> dict[str, Any]:
    """Seconds of one run, and the most memory that its processes had. With `kill`, a worker is killed in its middle."""
    models = load_settings().models_dir
    with tempfile.TemporaryDirectory(prefix="matinee-bench-") as home:
        (Path(home) / "models").symlink_to(models)
        env = os.environ | {"MATINEE_HOME": home, "MATINEE_EMBEDDER__PRECISION": "fp32"}
        command = [sys.executable, "-m", "train.ingest", str(catalogue), "--json", "--rejects", home, *options]
        start = time.perf_counter()
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        peak = 0
        while process.poll() is None:
            family = _family(process.pid)
            peak = max(peak, sum(_memory(one) for one in family))
            workers = [one for one in family if "Embedding" in _title(one)]
            if kill and workers and _stored_bytes(Path(home)) > 0:
                workers[0].kill()
                kill = False
            time.sleep(0.25)
        seconds = time.perf_counter() - start
        stdout = process.stdout.read() if process.stdout else b""
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        result = json.loads(stdout)
        return {"seconds": round(seconds, 2), "memory_mb": peak >> 20, "known": result.get("texts known from the last ingest")}


def _family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return []


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _memory(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss - process.memory_info().shared)
    return 0


def _stored_bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in (home / "ingest").glob("*.sqlite*")) if (home / "ingest").is_dir() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs=2, default=[1000, 3000], metavar=("FEW", "MANY"), help="sizes of the two catalogues")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    few, many = args.items
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="matinee-bench-") as folder:
        catalogues = [write_catalogue(Path(folder) / f"{count}.jsonl", count) for count in (few, many)]
        for name, options in ENGINES.items():
            short, long = (ingest(path, options) for path in catalogues)
            rate = (many - few) / (long["seconds"] - short["seconds"])
            results[name] = {
                "items_per_s": round(rate, 1),
                "start_s": round(short["seconds"] - few / rate, 1),
                "seconds": long["seconds"],
                "memory_mb": [short["memory_mb"], long["memory_mb"]],
            }
            print(name, json.dumps(results[name]))
        killed = ingest(catalogues[1], ENGINES["Ray, 2 workers"], kill=True)
        results["Ray, 2 workers, one killed"] = killed | {"lost_s": round(killed["seconds"] - results["Ray, 2 workers"]["seconds"], 1)}
    print(json.dumps(results, indent=1))
    if args.out:
        args.out.write_text(json.dumps(results))


if __name__ == "__main__":
    run_main(main)
