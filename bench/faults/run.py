"""Runs a case under a steady load, and judges what the load saw of it."""

import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]

from bench.faults.case import Case, Stand, name_of
from bench.load import Answer
from bench.local_server import BenchError
from bench.traffic import Traffic, traffic

RATE = 20.0
CALM_S = 5.0
WELL_S = 3.0
"""So long every answer must be whole before the server counts as recovered."""
PATIENCE_S = 180.0


@dataclass
class CaseResult:
    """What a case did. Seconds are None where they were not reached."""

    case: str
    breaks: str
    placement: str
    seconds: float = 0.0
    sent: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    degraded: int = 0
    p50_ms: float = 0.0
    p50_before_ms: float = 0.0
    recovered_s: float | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """One line; the problems have the whole of it."""
        return "; ".join(problem.partition("\n")[0] for problem in self.problems) or "ok"


def run(case: Case, placement: str, source: Path, seconds: float | None) -> CaseResult:
    """The row of a case on a server of its own. What keeps the case from being played is a problem of its row, too."""
    lasts = case.seconds if seconds is None or not case.seconds else seconds
    row = CaseResult(case.name, case.breaks, placement, lasts)
    with ExitStack() as exits:
        stand = Stand(source, Path(tempfile.mkdtemp(prefix="matinee-faults-")), placement, case, lasts, exits)
        try:
            stand.start()
            case.measure(stand)
            lines = case.lines(stand.server.url)
            with traffic(stand.server.url, lines, source, case.name, rate=RATE) as load:
                _play(case, stand, load, row)
            row.problems += case.check(stand)
        except (BenchError, OSError, subprocess.SubprocessError, httpx.HTTPError, psutil.Error) as error:
            row.problems.append(f"{type(error).__name__}: {error}")
        row.notes = stand.notes
    return row


def _play(case: Case, stand: Stand, load: Traffic, row: CaseResult) -> None:
    time.sleep(CALM_S)
    started = time.monotonic()
    case.start(stand)
    try:
        time.sleep(max(0.0, row.seconds - (time.monotonic() - started)))
    finally:
        case.end(stand)
    # What can only happen is over when it has happened, however long it takes to be put right.
    ended = time.monotonic() if row.seconds else started
    row.seconds = round(ended - started, 1)
    recovered = _wait_well(load, max(ended, time.monotonic()))
    load.stop()
    judge(case, row, load.answers(), started, ended, recovered)


def _wait_well(load: Traffic, since: float) -> bool:
    """Whether all that was sent in the last `WELL_S` seconds was answered as it should be, before `PATIENCE_S` are over."""
    end = since + PATIENCE_S
    while (now := time.monotonic()) < end:
        recent = [answer for answer in load.answers() if answer.due_s > max(since, now - WELL_S)]
        if now - since > WELL_S and len(recent) > WELL_S * RATE / 2 and all(map(whole, recent)):
            return True
        time.sleep(0.2)
    return False


def whole(answer: Answer) -> bool:
    return answer.status == 200 and not answer.degraded


def judge(case: Case, row: CaseResult, answers: Sequence[Answer], started: float, ended: float, recovered: bool) -> None:
    """Fill the row from the answers to all requests that were under way when the fault `started`, or came later."""
    before = [answer for answer in answers if answer.due_s + answer.ms / 1000 < started]
    since = [answer for answer in answers if answer.due_s + answer.ms / 1000 >= started]
    row.sent = len(since)
    row.failed = dict(Counter(name_of(answer.status) for answer in since if answer.status != 200))
    row.degraded = sum(answer.degraded for answer in since)
    good = [answer.ms for answer in since if answer.status == 200]
    row.p50_ms, row.p50_before_ms = (round(statistics.median(ms), 1) if ms else 0.0 for ms in (good, [a.ms for a in before]))
    bad_until = max((answer.due_s for answer in since if not whole(answer)), default=started)
    if recovered:
        row.recovered_s = round(max(0.0, bad_until - ended), 1)
    spoilt = [answer for answer in before if not whole(answer)]
    if spoilt:
        row.problems.append(f"{len(spoilt)} of {len(before)} requests had failed before the fault: the machine is too busy")
    wrong = Counter(name_of(a.status) for a in since if a.status not in {200, *case.allowed})
    row.problems += [f"{count} x {status}" for status, count in wrong.items()]
    silent = sum(not answer.retry_after for answer in since if answer.status in {429, 503})
    if silent:
        row.problems.append(f"{silent} x 503 without Retry-After")
    if row.degraded and not case.degrades:
        row.problems.append(f"{row.degraded} answers without a part")
    if row.recovered_s is None:
        row.problems.append(f"not well again within {PATIENCE_S:.0f} s")
    elif row.recovered_s > case.recover_s:
        row.problems.append(f"well again after {row.recovered_s:.1f} s, at most {case.recover_s:.0f}")
