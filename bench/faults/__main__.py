"""What users notice when something breaks: each fault is played on a server of its own under 20 requests a second.

    python -m bench.faults                                   # every case, in both placements
    python -m bench.faults --placement process --json faults.json
    python -m bench.faults --only overload hung-qdrant --seconds 20
    python -m bench.faults --list

Serves the bundled films, or a copy of the index in `--home`. For each case: the requests sent since the fault began, those that failed by
status, the seconds from the end of the fault until all answers were whole and as quick as before, and a verdict: whether only those
statuses came that are right, with Retry-After, and the recovery took no longer than the case allows. Ends with 1 if a verdict is not ok.

What is killed has somebody who starts it again: Ray Serve for its replicas, this command for the server as systemd would. There is no
Qdrant server in it: `bench.faults.fake_qdrant` answers in its place.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from bench.faults import ingest, injections, kills, overload, qdrant, storage
from bench.faults.case import CUT_OFF, Case
from bench.faults.run import CaseResult, run
from bench.local_server import temporary_home
from bench.tables import print_aligned
from matinee.cli.errors import run_main

CASES: tuple[Case, ...] = (
    overload.Overload(),
    kills.KillServer("process"),
    kills.KillServer("ray"),
    kills.KillPart("gateway", allowed=CUT_OFF | {500, 504}),
    kills.KillPart("embedder"),
    kills.KillPart("retriever"),
    kills.KillPart("enhancer"),
    kills.KillPart("controller"),
    kills.KillPart("proxy", allowed=kills.STARTING | {504}),
    kills.KillHead("gcs", "kill -9 of Ray's GCS, the head of its cluster"),
    kills.KillHead("raylet", "kill -9 of Ray's raylet, which runs the replicas"),
    overload.Scale(),
    qdrant.HungQdrant(),
    qdrant.SlowQdrant(),
    injections.HungEnhancer(),
    injections.StuckEnhancer(),
    storage.FullDisk(),
    storage.FullEvents(),
    injections.ClockStep(),
    injections.ClockSkew(),
    ingest.KilledIngest(),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted({case.name for case in CASES}), metavar="NAME", help="run only these cases")
    parser.add_argument("--placement", choices=["process", "ray"], help="one process, or Ray Serve; both without it")
    parser.add_argument("--seconds", type=float, help="how long each fault lasts that can last; 60 for the overload, 10 for others")
    parser.add_argument("--home", type=Path, help="use a copy of this home's index instead of the bundled films")
    parser.add_argument("--json", type=Path, help="write the rows to this file, each when it is there")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{case.name:18}{' '.join(case.placements):14}{case.breaks}" for case in CASES))
        return
    rows = []
    with temporary_home(args.home) as source:
        for case in CASES:
            for placement in case.placements:
                if (args.only and case.name not in args.only) or args.placement not in {None, placement}:
                    continue
                print(f"{case.name}, {placement}: {case.breaks} ...", file=sys.stderr, flush=True)
                rows.append(run(case, placement, source, args.seconds))
                print(f"  {rows[-1].verdict}", file=sys.stderr, flush=True)
                if args.json:
                    args.json.write_text(json.dumps([asdict(row) | {"verdict": row.verdict} for row in rows], indent=1))
    if not rows:
        raise SystemExit("no case is left: --only and --placement leave none; --list shows them")
    _print(rows)
    sys.exit(any(row.problems for row in rows))


def _print(rows: list[CaseResult]) -> None:
    heads = ("case", "placement", "lasts s", "sent", "failed", "without a part", "p50 ms before, since", "recovered s", "verdict")
    cells = []
    for row in rows:
        failed = ", ".join(f"{count} x {status}" for status, count in sorted(row.failed.items())) or "0"
        took = "never" if row.recovered_s is None else f"{row.recovered_s:.1f}"
        times = f"{row.p50_before_ms:.0f}, {row.p50_ms:.0f}"
        cells.append((row.case, row.placement, f"{row.seconds:.0f}", str(row.sent), failed, str(row.degraded), times, took, row.verdict))
    print_aligned(heads, cells, width=200)
    for row in rows:
        if row.notes:
            print(f"{row.case}, {row.placement}: {'; '.join(row.notes)}")


if __name__ == "__main__":
    run_main(main)
