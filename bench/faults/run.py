"""Runs a case under a steady load, and judges what the load saw of it."""

import statistics
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]

from bench.faults.case import Case, Sandbox, name_of
from bench.load import Answer
from bench.local_server import BenchError
from bench.traffic import Traffic, traffic
from matinee.client.http import ServerError

RATE = 20.0
CALM_S = 5.0
WELL_S = 3.0
"""So long every answer must be whole and as quick as before, until the server counts as recovered."""
PATIENCE_S = 180.0
SLOWER, SLOWER_MS = 2.0, 50.0
"""As quick as before: the median is at most so many times that before the fault, or so many ms above it, whichever is more."""


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
        sandbox = Sandbox(source, Path(tempfile.mkdtemp(prefix="matinee-faults-")), placement, case, lasts, exits)
        try:
            sandbox.start()
            case.measure(sandbox)
            lines = case.lines(sandbox.server.url)
            with traffic(sandbox.server.url, lines, source, case.name, rate=RATE) as load:
                _play(case, sandbox, load, row)
            row.problems += case.check(sandbox)
        except (BenchError, OSError, subprocess.SubprocessError, ServerError, httpx.HTTPError, psutil.Error) as error:
            row.problems.append(f"{type(error).__name__}: {error}")
        row.notes = sandbox.notes
    return row


def _play(case: Case, sandbox: Sandbox, load: Traffic, row: CaseResult) -> None:
    time.sleep(CALM_S)
    started = time.monotonic()
    case.start(sandbox)
    try:
        time.sleep(max(0.0, row.seconds - (time.monotonic() - started)))
    finally:
        case.end(sandbox)
    # What can only happen is over when it has happened, however long it takes to be put right.
    ended = time.monotonic() if row.seconds else started
    row.seconds = round(ended - started, 1)
    recovered = _wait_well(load, started, time.monotonic())
    load.stop()
    evaluate_case(case, row, load.answers(), started, ended, recovered)


def _wait_well(load: Traffic, started: float, since: float) -> bool:
    """Whether all that was sent in the last `WELL_S` seconds was answered as before the fault, before `PATIENCE_S` are over."""
    end = since + PATIENCE_S
    while (now := time.monotonic()) < end:
        answers = load.answers()
        recent = [answer for answer in answers if answer.due_s > max(since, now - WELL_S)]
        enough = now - since > WELL_S and len(recent) > WELL_S * RATE / 2
        if enough and all(map(whole, recent)) and median(recent) <= slowest_ms(_before(answers, started)):
            return True
        time.sleep(0.2)
    return False


def whole(answer: Answer) -> bool:
    return answer.status == 200 and not answer.degraded


def median(answers: Sequence[Answer]) -> float:
    """In ms; 0 without answers."""
    return statistics.median(answer.ms for answer in answers) if answers else 0.0


def slowest_ms(before: Sequence[Answer]) -> float:
    """The highest median, in ms, that counts as normal after the answers `before` the fault."""
    return max(SLOWER * median(before), median(before) + SLOWER_MS)


def _before(answers: Sequence[Answer], started: float) -> list[Answer]:
    return [answer for answer in answers if answer.due_s + answer.ms / 1000 < started]


def _bad_until(answers: Sequence[Answer], ended: float, slow_ms: float) -> float:
    """When the last request was sent that was not answered wholly, or the last second after the fault ended in which half were slow."""
    bad = max((answer.due_s for answer in answers if not whole(answer)), default=ended)
    seconds: dict[int, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.due_s >= ended:
            seconds[int(answer.due_s - ended)].append(answer)
    # The last second may have a few requests only.
    slow = [second for second, sent in seconds.items() if len(sent) >= RATE / 2 and median(sent) > slow_ms]
    return max(bad, ended + max(slow) + 1) if slow else bad


def evaluate_case(case: Case, row: CaseResult, answers: Sequence[Answer], started: float, ended: float, recovered: bool) -> None:
    """Fill the row from the answers to all requests that were under way when the fault `started`, or came later."""
    before = _before(answers, started)
    since = [answer for answer in answers if answer.due_s + answer.ms / 1000 >= started]
    row.sent = len(since)
    row.failed = dict(Counter(name_of(answer.status) for answer in since if answer.status != 200))
    row.degraded = sum(answer.degraded for answer in since)
    row.p50_ms, row.p50_before_ms = round(median([answer for answer in since if answer.status == 200]), 1), round(median(before), 1)
    if recovered:
        row.recovered_s = round(max(0.0, _bad_until(since, ended, slowest_ms(before)) - ended), 1)
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
