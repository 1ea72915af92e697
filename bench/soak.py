"""Does anything grow? A server under a light, steady load for hours: memory, sockets, threads, queues and latency over time.

    python -m bench.soak --hours 0.5
    python -m bench.soak --hours 12 --placement ray --rate 20 --json soak.json

Serves the bundled films (or a copy of the index in `--home`) with the enhancer and an event log, and sends searches, recommendations,
look-ups, writes and a few descriptions. Every `--every` seconds it measures each process. The table has, for each figure, its median
in the first and the last fifth, and its slope an hour: the median of the slopes between all pairs of samples (Theil-Sen) after the first
quarter, which is warm-up, with a 95 % interval. A figure grows if the whole interval is above its limit. Ends with 1 if one grows, if an
event was dropped, or if more than one request in a thousand failed. `--json` is written at every sample; Ctrl-C ends early, with the table
of what there is.
"""

import argparse
import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families
from scipy.stats import theilslopes

from bench.load import Answer
from bench.local_server import LocalServer, temporary_home
from bench.tables import print_aligned
from bench.traffic import Traffic, TrafficLine, describe, reads, traffic, write
from matinee.cli.errors import run_main

WARM_UP = 0.25
LIMITS = {"PSS, MB": (0.02, 8.0), "RSS, MB": (0.02, 8.0), "threads": (0.0, 4.0), "sockets": (0.0, 4.0), "files": (0.0, 4.0)}
"""What may be added an hour: a part of the median, or so much, whichever is more. Others: a quarter of the median."""
OTHER_LIMIT = (0.25, 1.0)


@dataclass(frozen=True)
class Growth:
    """One figure of one part over the whole run."""

    part: str
    figure: str
    first: float
    last: float
    slope: float
    low: float
    high: float
    limit: float

    @property
    def grows(self) -> bool:
        return self.low > self.limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=0.5, help="how many hours to run")
    parser.add_argument("--rate", type=float, default=10, help="requests a second")
    parser.add_argument("--every", type=float, default=15, help="seconds between two samples")
    parser.add_argument("--placement", choices=["process", "ray"], default="process", help="one process, or Ray Serve")
    parser.add_argument("--home", type=Path, help="soak a copy of this home's index instead of the bundled films")
    parser.add_argument("--json", type=Path, help="write all samples to this file")
    args = parser.parse_args()
    with temporary_home(args.home) as home:
        server = LocalServer(home, {"MATINEE_SERVING__PLACEMENT": args.placement, "MATINEE_EVENTS__URI": str(home / "events")})
        try:
            server.start()
            server.wait_ready()
            with traffic(server.url, _lines(server.url), home, "soak", rate=args.rate) as load:
                samples = _sample(server, load, args.hours * 3600, args.every, args.json)
            answers = load.answers()
        finally:
            server.stop()
    growths = measure(samples)
    failed = sum(answer.status != 200 for answer in answers)
    grown = [growth for growth in growths if growth.grows]
    dropped = int(samples[-1]["queues"].get("ray_matinee_events_dropped_total", 0))
    _print(growths, answers, dropped)
    verdict = "; ".join(f"{growth.part}: {growth.figure} grows" for growth in grown) or "nothing grows"
    if failed > len(answers) / 1000:
        verdict += f"; {failed} of {len(answers)} requests failed"
    if dropped:
        verdict += f"; {dropped} events dropped"
    print(f"\n{(samples[-1]['at_s']) / 3600:.2f} hours at {args.rate:g} requests/s, placement {args.placement}: {verdict}")
    if args.json:
        report = {"samples": samples, "growth": [asdict(growth) for growth in growths], "events_dropped": dropped, "verdict": verdict}
        args.json.write_text(json.dumps(report))
    sys.exit(verdict != "nothing grows")


def _lines(url: str) -> list[TrafficLine]:
    """2,000 different requests: caches are full before the warm-up ends."""
    lines = reads(url, 2000)
    for n in range(0, len(lines), 50):
        lines[n] = write(n)
    for n in range(25, len(lines), 200):
        lines[n] = describe(n)
    return lines


def _sample(server: LocalServer, load: Traffic, seconds: float, every_s: float, out: Path | None) -> list[dict[str, Any]]:
    samples: list[dict[str, Any]] = []
    start, seen = time.monotonic(), 0
    while True:
        due = start + every_s * (len(samples) + 1)
        try:
            time.sleep(max(0.0, due - time.monotonic()))
        except KeyboardInterrupt:
            return samples
        answers = load.answers()
        new, seen = answers[seen:], len(answers)
        samples.append({"at_s": time.monotonic() - start, "parts": _parts(server), "load": _latency(new), "queues": _queues(server)})
        print(json.dumps({"at_s": round(samples[-1]["at_s"]), "load": samples[-1]["load"]}), file=sys.stderr, flush=True)
        if out:
            out.write_text(json.dumps({"samples": samples}))
        if time.monotonic() - start >= seconds:
            return samples


def _parts(server: LocalServer) -> dict[str, dict[str, float]]:
    """Of each part, summed over its processes."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for part, process in server.processes():
        try:
            with process.oneshot():
                memory = process.memory_full_info()
                figures = {
                    "PSS, MB": memory.pss / 1e6,
                    "RSS, MB": memory.rss / 1e6,
                    "threads": process.num_threads(),
                    "sockets": len(process.net_connections(kind="all")),
                    "files": process.num_fds(),
                    "processes": 1,
                }
        except psutil.Error:
            continue
        counts[part].update(figures)
    return {part: dict(figures) for part, figures in counts.items()}


def _latency(answers: list[Answer]) -> dict[str, float]:
    ms = sorted(answer.ms for answer in answers)
    if not ms:
        return {"failed": 0}
    return {"p50, ms": ms[len(ms) // 2], "p99, ms": ms[int(len(ms) * 0.99)], "failed": sum(answer.status != 200 for answer in answers)}


def _queues(server: LocalServer) -> dict[str, float]:
    """Running totals of the time that calls waited, by part: their growth a second is the mean length of the queue (Little's law)."""
    text = httpx.get(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=30, trust_env=False).text
    totals: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "ray_matinee_queue_wait_ms_sum":
                totals[sample.labels["part"]] += sample.value
            elif sample.name in {"ray_matinee_in_flight_requests", "ray_matinee_events_dropped_total"}:
                totals[sample.name] += sample.value
    return dict(totals)


def series(samples: list[dict[str, Any]]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(part, figure) -> (hours, value) of each sample."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    before: dict[str, Any] | None = None
    for sample in samples:
        hours = sample["at_s"] / 3600
        for part, figures in sample["parts"].items():
            for figure, value in figures.items():
                points[part, figure].append((hours, value))
        for figure, value in sample["load"].items():
            points["requests", figure].append((hours, value))
        for name, value in sample["queues"].items():
            if name == "ray_matinee_in_flight_requests":
                points["gateway's requests", "under way"].append((hours, value))
            elif name != "ray_matinee_events_dropped_total" and before is not None:
                waited_s = (value - before["queues"].get(name, 0.0)) / 1000
                points[f"{name}'s queue", "mean length"].append((hours, waited_s / (sample["at_s"] - before["at_s"])))
        before = sample
    return dict(points)


def measure(samples: list[dict[str, Any]]) -> list[Growth]:
    """First, last and slope of each figure. Parts that were not there all the time have no slope."""
    growths = []
    for (part, figure), points in series(samples).items():
        values = [value for _, value in points]
        fifth = max(1, len(values) // 5)
        first, last = statistics.median(values[:fifth]), statistics.median(values[-fifth:])
        warm = points[int(len(points) * WARM_UP) :]
        if len(warm) < 4 or len(points) < len(samples) - 1:
            continue
        slope, _, low, high = theilslopes([value for _, value in warm], [hours for hours, _ in warm])
        share, least = LIMITS.get(figure, OTHER_LIMIT)
        limit = max(share * statistics.median(values), least)
        growths.append(Growth(part, figure, first, last, float(slope), float(low), float(high), limit))
    return growths


def _print(growths: list[Growth], answers: list[Answer], dropped: int) -> None:
    rows = []
    for growth in growths:
        interval = f"{growth.slope:+.1f} [{growth.low:+.1f}, {growth.high:+.1f}]"
        cells = (f"{growth.first:.1f}", f"{growth.last:.1f}", interval, f"{growth.limit:.1f}", "yes" if growth.grows else "no")
        rows.append((growth.part, growth.figure, *cells))
    heads = ("part", "figure", "first fifth", "last fifth", "slope an hour [95 %]", "may grow by", "grows")
    print_aligned(heads, rows, width=160)
    statuses = Counter(answer.status for answer in answers)
    print(f"\n{len(answers)} requests: {', '.join(f'{n} x {status}' for status, n in sorted(statuses.items()))}; {dropped} events dropped")


if __name__ == "__main__":
    run_main(main)
