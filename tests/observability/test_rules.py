"""Every recording rule and alert, run by promtool over made-up series: what it says, when it fires and when it stays quiet."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability.alerts import BURNS
from observability.files import PLAIN
from observability.objectives import defaults, fill, of_all_releases
from observability.queries import panels
from observability.recordings import WINDOWS
from observability.rules import alerts, groups
from tests.observability.programs import needs

ROOT = Path(__file__).parents[2]
needs_promtool = needs("promtool")

APP = 'namespace="ns",matinee_release="matinee",application="matinee"'
MINUTES = {"m": 1, "h": 60, "d": 1440}
Series = dict[str, str]


def minutes(window: str) -> int:
    return int(window[:-1]) * MINUTES[window[-1]]


@dataclass(frozen=True)
class Case:
    """Series by the step, and whether the alert fires at the end of so many steps; a step is a minute, longer for the long windows."""

    alert: str
    fires: bool
    at: int
    series: Series
    window: str = ""
    step: int = 1


def requests(ok: str, failed: str) -> Series:
    one = f"ray_matinee_requests_total{{{APP},endpoint="
    return {f'{one}"search",outcome="ok"}}': ok, f'{one}"search",outcome="deadline"}}': failed}


def answers(all_: str, in_time: str) -> Series:
    one = f'{{{APP},endpoint="search"'
    return {f"ray_matinee_request_ms_count{one}}}": all_, f'ray_matinee_request_ms_bucket{one},le="500.0"}}': in_time}


def burn_cases() -> list[Case]:
    """For each pair of windows: a burn that lasts fires; one that is over, or that only began, does not."""
    found = []
    for factor, long, short, _ in BURNS:
        step = minutes(short) // 5
        last, brief = minutes(long) // step, minutes(short) // step
        end = last + brief + 20
        for alert, budget in (("MatineeAvailabilityBurn", 0.001), ("MatineeLatencyBurn", 0.01)):
            bad = round(1_000_000 * budget * float(factor) * 1.5)
            burns = {
                "lasts": f"0+{bad}x{end}",
                "over": f"0+{bad}x{end - 2 * brief} {bad * (end - 2 * brief)}x{2 * brief}",
                "began": f"0x{end - brief} 0+{bad}x{brief}",
            }
            for kind, failed in burns.items():
                series = requests(f"0+1000000x{end}", failed)
                if alert == "MatineeLatencyBurn":
                    series = answers(f"0+1000000x{2 * end}", _complement(failed))
                found.append(Case(alert, kind == "lasts", end, series, long, step))
    return found


def _complement(failed: str) -> str:
    """The answers that came in time, where `failed` did not, of a million a minute."""
    total, parts = 0, []
    for part in failed.split():
        start, step, count = (int(n or 0) for n in re.fullmatch(r"(\d+)(?:\+(\d+))?x(\d+)", part).groups())  # type: ignore[union-attr]
        parts.append(f"{total}+{1_000_000 - step}x{count}")
        total += (1_000_000 - step) * count + (1_000_000 - step)
        assert start >= 0
    return " ".join(parts)


RECALL = 'matinee_probe_recall_at_10{namespace="ns",matinee_release="matinee",set="demo",mode="hybrid"}'
ANN = 'matinee_probe_ann_recall_at_10{namespace="ns",filtered="true"}'
UNKNOWN = 'matinee_probe_unknown_items{namespace="ns",matinee_release="matinee",set="demo"}'
LABELLED = UNKNOWN.replace("unknown", "labelled")
QUERIES = 'matinee_probe_queries{namespace="ns",matinee_release="matinee",set="'
PROBE_UP = 'matinee_probe_up{namespace="ns",matinee_release="matinee"}'
ROUND = 'matinee_probe_last_success_timestamp_seconds{namespace="ns"}'
ROUNDS = 'matinee_probe_rounds_total{namespace="ns"}'
SYNCED = 'matinee_sync_last_success_timestamp_seconds{namespace="ns",matinee_release="matinee"}'
SYNCS = SYNCED.replace("last_success_timestamp_seconds", "rounds_total")
DEGRADED = f'ray_matinee_degraded_total{{{APP},part="enhancer",reason="deadline"}}'
REFUSED = f"ray_matinee_refused_total{{{APP}}}"
UP = f'ray_matinee_index_up{{{APP},catalogue="demo",replica="a"}}'
UP_B = f'ray_matinee_index_up{{{APP},catalogue="demo",replica="b"}}'
BUILT = f'ray_matinee_index_built_timestamp_seconds{{{APP},catalogue="demo"}}'
SWAPS = f'ray_matinee_model_swap_failures_total{{{APP},part="enhancer"}}'
SKEW = f'ray_matinee_clock_skew_seconds{{{APP},part="retriever",replica="a"}}'
STATUS = f'ray_serve_deployment_status{{{APP},deployment="Gateway"}}'
TARGET = f'ray_serve_autoscaling_target_replicas{{{APP},deployment="Gateway"}}'
POD = 'up{job="ns/matinee",namespace="ns",matinee_release="matinee",pod="matinee-x-head-1"}'


def healthy(replica: str) -> str:
    return f'ray_serve_deployment_replica_healthy{{{APP},deployment="Gateway",replica="{replica}"}}'


def waits(slow: int) -> Series:
    """Of a hundred calls a minute, so many wait above half a second."""
    one = f'ray_matinee_queue_wait_ms_bucket{{{APP},part="embedder",le='
    return {f'{one}"500.0"}}': f"0+{100 - slow}x30", f'{one}"1000.0"}}': "0+100x30", f'{one}"+Inf"}}': "0+100x30"}


def restarting(times: int) -> Series:
    """A replica that is there all the time, and so many that come and go."""
    come_and_go = {healthy(f"r{n}"): f"_x{31 + n} 0x2 stale" for n in range(times)}
    return {healthy("old"): "1x60", TARGET: "1x60", **come_and_go}


CASES = [
    *burn_cases(),
    # Nothing but failures, from the very first request on: an index that was never there.
    Case(
        "MatineeAvailabilityBurn",
        True,
        70,
        {f'ray_matinee_requests_total{{{APP},endpoint="search",outcome="index_absent"}}': "0+10x70"},
        "1h",
    ),
    # A request that the gateway refuses is a failure too.
    Case("MatineeAvailabilityBurn", True, 70, requests("0+1000x70", "0x70") | {REFUSED: "0+50x70"}, "1h"),
    # What a client did wrong, and health checks, are not.
    Case(
        "MatineeAvailabilityBurn", False, 70, {f'ray_matinee_requests_total{{{APP},endpoint="search",outcome="invalid"}}': "0+10x70"}, "1h"
    ),
    Case("MatineeAvailabilityBurn", False, 70, {f'ray_matinee_requests_total{{{APP},endpoint="readyz",outcome="503"}}': "0+10x70"}, "1h"),
    Case("MatineeRecallDrop", True, 50, {RECALL: "0.8x40 0.6x10"}, step=6),
    Case("MatineeRecallDrop", False, 50, {RECALL: "0.8x40 0.75x10"}, step=6),
    Case("MatineeRecallDrop", False, 60, {RECALL: "0.8x40 0.6x10 0.8x10"}, step=6),
    Case("MatineeRecallLow", True, 60, {RECALL: "0.4x60"}),
    Case("MatineeRecallLow", False, 60, {RECALL: "0.6x60"}),
    Case("MatineeApproximateRecallLow", True, 60, {ANN: "0.9x60"}),
    Case("MatineeApproximateRecallLow", False, 60, {ANN: "0.99x60"}),
    Case("MatineeItemsMissing", True, 30, {UNKNOWN: "0x10 20x20", LABELLED: "100x30"}),
    Case("MatineeItemsMissing", False, 30, {UNKNOWN: "5x30", LABELLED: "100x30"}),
    Case("MatineeRecallUnwatched", True, 90, {f'{QUERIES}none"}}': "0x90"}),
    Case("MatineeRecallUnwatched", False, 90, {f'{QUERIES}none"}}': "0x10 stale", f'{QUERIES}mine"}}': "_x10 44x80"}),
    Case("MatineeUnreachable", True, 30, {PROBE_UP: "1x10 0x20"}),
    Case("MatineeUnreachable", False, 30, {PROBE_UP: "1x10 0x5 1x15"}),
    Case("MatineeDegraded", True, 40, requests("0+100x40", "0x40") | {DEGRADED: "0+10x40"}),
    Case("MatineeDegraded", False, 40, requests("0+100x40", "0x40") | {DEGRADED: "0+1x40"}),
    Case("MatineeDegraded", False, 40, requests("0+100x40", "0x40")),
    Case("MatineeProbeSilent", True, 30, {ROUND: "60x30"}),
    Case("MatineeProbeSilent", False, 30, {ROUND: "0+60x30"}),
    Case("MatineeProbeGone", True, 40, {ROUNDS: "0+1x10 stale"}),
    Case("MatineeProbeGone", True, 40, {ROUNDS: "0+1x40"}),
    Case("MatineeProbeGone", False, 40, {ROUNDS: "0+1x40", ROUND: "_x10 0+60x30"}),
    Case("MatineeSyncStale", True, 27 * 10, {SYNCED: f"0x{27 * 10}", SYNCS: f"0+1x{27 * 10}"}, step=6),
    Case("MatineeSyncStale", False, 27 * 10, {SYNCED: f"0x10 {24 * 3600}x{26 * 10}", SYNCS: f"0+1x{27 * 10}"}, step=6),
    # One that never got on, and one that is gone.
    Case("MatineeSyncStale", True, 90, {SYNCS: "0+1x90"}),
    Case("MatineeSyncStale", True, 90, {SYNCED: "0x10 stale", SYNCS: "0+1x10 stale"}),
    Case("MatineeQueueSaturated", True, 30, waits(20)),
    Case("MatineeQueueSaturated", False, 30, waits(2)),
    Case("MatineeRefusing", True, 30, requests("0+100x30", "0x30") | {REFUSED: "0+10x30"}),
    Case("MatineeRefusing", False, 30, requests("0+100x30", "0x30") | {REFUSED: "0x30"}),
    Case("MatineeRefusing", False, 30, requests("0+100x30", "0x30")),
    Case("MatineeIndexUnreachable", True, 20, {UP: "1x10 0x10", UP_B: "1x20"}),
    Case("MatineeIndexUnreachable", False, 20, {UP: "1x10 0x1 1x10", UP_B: "1x20"}),
    Case("MatineeIndexStale", True, 200, {BUILT: "0x200"}),
    Case("MatineeIndexStale", False, 200, {BUILT: "0x100 6000x100"}),
    Case("MatineeModelSwapFailed", True, 40, {SWAPS: "_x35 1x5"}),
    Case("MatineeModelSwapFailed", True, 60, {SWAPS: "1x50 2x10"}),
    Case("MatineeModelSwapFailed", False, 60, {SWAPS: "_x5 1x60"}),
    Case("MatineeReplicaCrashLoop", True, 41, restarting(6)),
    Case("MatineeReplicaCrashLoop", False, 41, restarting(2)),
    Case("MatineeDeploymentUnhealthy", True, 20, {STATUS: "6x5 1x15"}),
    Case("MatineeDeploymentUnhealthy", False, 20, {STATUS: "6x5 3x15"}),
    Case("MatineeClockSkew", True, 30, {SKEW: "0x10 -16x20"}),
    Case("MatineeClockSkew", True, 30, {SKEW: "0x10 16 0 16 0 16 0 16 0 16 0 16 0 16 0 16 0 16 0 16"}),
    Case("MatineeClockSkew", False, 30, {SKEW: "0.4x30"}),
    Case("MatineeClockSkew", False, 60, {SKEW: "16x30 0x30"}),
    Case("MatineeReplicasMissing", True, 40, {TARGET: "2x40", healthy("a"): "1x40", healthy("b"): "1x10 0x30"}),
    # One that is pending has no series, and that of one which stopped goes away.
    Case("MatineeReplicasMissing", True, 40, {TARGET: "1x40", healthy("a"): "1x10 0x1 stale"}),
    Case("MatineeReplicasMissing", True, 40, {TARGET: "1x40"}),
    Case("MatineeReplicasMissing", False, 40, {TARGET: "2x40", healthy("a"): "1x40", healthy("b"): "1x10 0x5 1x25"}),
    Case("MatineePodCrashLoop", True, 20, {POD: "0x1 " + "1x2 0x1 " * 4}),
    Case("MatineePodCrashLoop", False, 20, {POD: "0x4 1x5 0x2 1x8"}),
]


def promtool(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


GROUPS = {group["name"]: group for group in groups()}


def group_of(alert: str) -> str:
    [name] = {name for name, group in GROUPS.items() if any(rule.get("alert") == alert for rule in group["rules"])}
    return name


def rules_for(name: str, cases: list[Case]) -> list[dict[str, Any]]:
    """The alerts of a group that the cases are about, after the recordings that they read."""
    recordings = {rule["record"]: rule for group in groups() for rule in group["rules"] if "record" in rule}
    wanted = {(case.alert, case.window) for case in cases}

    def read(rule: dict[str, Any]) -> list[dict[str, Any]]:
        names = re.findall(r"matinee:[\w:]+", rule["expr"])
        return [each for found in names for each in (*read(recordings[found]), recordings[found])]

    asked = [rule for rule in GROUPS[name]["rules"] if (rule.get("alert"), rule.get("labels", {}).get("window", "")) in wanted]
    needed = {rule["record"]: rule for alert in asked for rule in read(alert)}
    return [GROUPS[name] | {"rules": [*needed.values(), *asked]}]


def run(folder: Path, tests: list[dict[str, Any]], evaluated: str = "1m", rules: list[dict[str, Any]] | None = None) -> None:
    """promtool's unit tests over groups of rules, with objectives that all can be reached soon."""
    objectives = defaults()
    objectives |= {"interval": evaluated, "indexMaxAgeHours": 2, "recall": {**objectives["recall"], "minimum": 0.5, "baseline": "4h"}}
    text = of_all_releases(fill(yaml.safe_dump({"groups": rules or groups()}), objectives))
    (folder / "rules.yaml").write_text(text, encoding="utf-8")
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": evaluated, "tests": tests}
    (folder / "tests.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    promtool("test", "rules", "tests.yaml", cwd=folder)


def checked(series: Series, at: int, expected: dict[str, float], step: int = 1) -> dict[str, Any]:
    return {
        "interval": f"{step}m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": expr, "eval_time": f"{at * step}m", "exp_samples": [{"labels": "{}", "value": value}]}
            for expr, value in expected.items()
        ],
    }


@needs_promtool
@pytest.mark.parametrize(
    ("step", "group"),
    # The longest windows repeat what the others show.
    [pytest.param(*by, marks=pytest.mark.full if by[0] > 6 else ()) for by in sorted({(c.step, group_of(c.alert)) for c in CASES})],
)
def test_alerts_fire_and_stay_quiet(step: int, group: str, tmp_path: Path) -> None:
    """By group, and without the rules of others: promtool evaluates every rule that it is given, at every step of every case."""
    cases = [case for case in CASES if (case.step, group_of(case.alert)) == (step, group)]
    tests = []
    for case in cases:
        window = f',window="{case.window}"' if case.window else ""
        firing = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"{window}}}) or vector(0)'
        tests.append(checked(case.series, case.at, {firing: float(case.fires)}, step))
    run(tmp_path, tests, f"{step}m", rules_for(group, cases))


def test_each_alert_has_a_case_of_both_kinds() -> None:
    for fires in (True, False):
        assert {(case.alert, case.window) for case in CASES if case.fires is fires} == {(alert.name, alert.window) for alert in alerts()}


@needs_promtool
def test_recording_rules_say_what_happened(tmp_path: Path) -> None:
    end = minutes("3d")
    series = requests(f"0+990x{end}", f"0+10x{end}") | answers(f"0+1000x{end}", f"0+950x{end}")
    series |= {DEGRADED: f"0+50x{end}", RECALL: f"0.8x{end - 15} 0.4x15"}
    expected = {}
    for window in WINDOWS:
        expected |= {
            f"round(sum(matinee:requests:rate{window}) * 60)": 1000,
            f"round(sum(matinee:failures:rate{window}) * 60)": 10,
            f"round(sum(matinee:availability:burn_rate{window}), 0.01)": 10,
            f"round(sum(matinee:latency:burn_rate{window}), 0.01)": 5,
        }
    expected |= {
        "round(sum(matinee:degraded:ratio_rate10m), 0.001)": 0.05,
        "round(sum(matinee:recall:avg), 0.1)": 0.6,
        "sum(matinee:recall:usual)": 0.8,
    }
    recorded = {rule["record"] for group in groups() for rule in group["rules"] if "record" in rule}
    assert {name for expr in expected for name in re.findall(r"matinee:[\w:]+", expr)} == recorded
    run(tmp_path, [checked(series, end, expected)], "1h")


@needs_promtool
@pytest.mark.parametrize("failed", ["", "0+60x20"])
def test_a_panel_of_errors_has_one_zero_before_the_first_and_only_errors_after(failed: str, tmp_path: Path) -> None:
    [errors] = [p.queries[0].expression for p in panels("matinee-overview", "5m") if p.title == "Errors"]
    series = {name: values for name, values in requests("0+60x20", failed).items() if values}
    run(tmp_path, [checked(series, 20, {f"count({errors})": 1, f"sum({errors})": 1 if failed else 0})])


@needs_promtool
def test_promtool_finds_nothing_to_complain_about() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", str(PLAIN), cwd=ROOT)


def test_every_alert_has_a_runbook_that_has_a_section_about_it() -> None:
    for alert in alerts():
        text = (ROOT / "k8s" / "runbooks" / alert.runbook).read_text(encoding="utf-8")
        assert f"`{alert.name}`" in text, (alert.name, alert.runbook)
