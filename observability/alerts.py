"""The alerts: what is wrong when each fires, for how long it may be, and which runbook helps; tokens stand for objectives.

What happens only in a failure has no series before it, and `increase()` would miss its first one: such counters are compared with their
value before. Does not fill in values and writes no files.
"""

from dataclasses import dataclass
from typing import Any

from observability.expressions import GROUP, rate, selector

BY_PART = f"{GROUP}, part"
BY_DEPLOYMENT = f"{GROUP}, deployment"
BURNS = (("14.4", "1h", "5m", "critical"), ("6", "6h", "30m", "critical"), ("3", "1d", "2h", "warning"), ("1", "3d", "6h", "warning"))
"""Burn rate, long and short window, severity: 2 % of the budget in an hour, 5 % in six, 10 % in a day, 10 % in three."""


@dataclass(frozen=True)
class Alert:
    """One alerting rule; `runbook` is a file of k8s/runbooks."""

    name: str
    expr: str
    lasts: str
    severity: str
    summary: str
    description: str
    runbook: str
    window: str = ""

    def rule(self) -> dict[str, Any]:
        labels = {"severity": self.severity} | ({"window": self.window} if self.window else {})
        annotations = {"summary": self.summary, "description": self.description}
        # The file, for whoever has the repository; the link, where somebody said how a browser gets to it.
        annotations |= {"runbook": f"k8s/runbooks/{self.runbook}", "runbook_url": f"<runbooks>/{self.runbook}"}
        return {"alert": self.name, "expr": self.expr, "for": self.lasts, "labels": labels, "annotations": annotations}


def burn_alerts() -> list[Alert]:
    texts = {
        "availability": ("MatineeAvailabilityBurn", "requests fail", "The objective is <availability> of requests answered."),
        "latency": ("MatineeLatencyBurn", "answers are slow", "The objective is <latency> of answers within <latency_bound> ms."),
    }
    return [
        Alert(
            name=name,
            expr=" and ".join(f"{selector(f'matinee:{kind}:burn_rate{window}')} > {factor}" for window in (long, short)),
            lasts="2m" if severity == "critical" else "15m",
            severity=severity,
            summary=f"{{{{ $labels.application }}}}: {what}, the error budget burns {factor} times too fast",
            description=f"{objective} Over {long} it burned {{{{ $value | humanize }}}} times as fast as it may; over {short} too.",
            runbook="failing-or-slow.md",
            window=long,
        )
        for kind, (name, what, objective) in texts.items()
        for factor, long, short, severity in BURNS
    ]


def recall_alerts() -> list[Alert]:
    avg, usual = selector("matinee:recall:avg"), selector("matinee:recall:usual")
    of_set = "{{ $labels.mode }} search of the set {{ $labels.set }}"
    return [
        Alert(
            "MatineeRecallDrop",
            f"1 - {avg} / {usual} > <recall_drop>",
            "<recall_for>",
            "critical",
            f"{of_set} finds less than it did",
            "Recall@10 of the probe's queries fell by {{ $value | humanizePercentage }} against its median over <recall_baseline>.",
            "recall-drop.md",
        ),
        Alert(
            "MatineeRecallLow",
            f"{avg} < <recall_minimum>",
            "<recall_for>",
            "critical",
            f"{of_set} finds less than it must",
            "Recall@10 of the probe's queries is {{ $value | humanize }}; the objective is <recall_minimum>.",
            "recall-drop.md",
        ),
        Alert(
            "MatineeApproximateRecallLow",
            f"avg_over_time({selector('matinee_probe_ann_recall_at_10')}[<recall_window>]) < <recall_ann>",
            "<recall_for>",
            "warning",
            "the approximate index loses results (filtered: {{ $labels.filtered }})",
            "It finds {{ $value | humanizePercentage }} of what exact search finds; <recall_ann> is expected.",
            "recall-drop.md",
        ),
        Alert(
            "MatineeRecallUnwatched",
            f"max by (namespace, matinee_release) ({selector('matinee_probe_queries')}) == 0",
            "1h",
            "warning",
            "the probe has no queries, so nobody watches recall",
            "No query set is about the catalogue that is served, so a search that gets worse raises no alert: set settings.probe.queries.",
            "recall-drop.md",
        ),
        Alert(
            "MatineeItemsMissing",
            f"{selector('matinee_probe_unknown_items')} / {selector('matinee_probe_labelled_items')} > <recall_unknown>",
            "<recall_for>",
            "critical",
            "the index lacks items of the set {{ $labels.set }}",
            "{{ $value | humanizePercentage }} of the labelled items are not in the index; recall leaves them out, and can't show it.",
            "recall-drop.md",
        ),
    ]


def answer_alerts() -> list[Alert]:
    place, rounds = "namespace, matinee_release", selector("matinee_probe_rounds_total")
    succeeded = selector("matinee_probe_last_success_timestamp_seconds")
    return [
        Alert(
            "MatineeDegraded",
            f"{selector('matinee:degraded:ratio_rate10m')} > <degraded>",
            "10m",
            "warning",
            "{{ $labels.application }}: answers leave a part out",
            "{{ $value | humanizePercentage }} of the answers of ten minutes came without a part that was late, full or not there.",
            "degraded-answers.md",
        ),
        Alert(
            "MatineeUnreachable",
            f"max by ({place}) ({selector('matinee_probe_up')}) == 0",
            "10m",
            "critical",
            "no client gets an answer",
            "The probe asks as clients do, and does not even get the state. What reaches no gateway burns no budget, so only this tells.",
            "probe-silent.md",
        ),
        Alert(
            "MatineeProbeSilent",
            f"time() - {succeeded} > 60 * <probe_silence>",
            "1m",
            "warning",
            "the probe gets no answers",
            "Its last round that succeeded is {{ $value | humanizeDuration }} ago: recall is not watched, and clients may fare no better.",
            "probe-silent.md",
        ),
        Alert(
            "MatineeProbeGone",
            f"max by ({place}) (count_over_time({rounds}[1d])) unless max by ({place}) ({succeeded})",
            "<probe_silence>m",
            "warning",
            "the probe is gone, or never got an answer",
            "There was a probe within the last day, and there is no round that succeeded: recall is not watched.",
            "probe-silent.md",
        ),
    ]


def sync_alerts() -> list[Alert]:
    place = "namespace, matinee_release"
    succeeded, rounds = selector("matinee_sync_last_success_timestamp_seconds"), selector("matinee_sync_rounds_total")
    never = f"(max by ({place}) (count_over_time({rounds}[1d])) unless max by ({place}) ({succeeded}))"
    return [
        Alert(
            "MatineeSyncStale",
            f"time() - max by ({place}) ({succeeded}) > 3600 * <sync_age> or {never}",
            "1h",
            "warning",
            "the catalogue is not what its source has",
            "No sync succeeded for <sync_age> hours, none since its pod started, or the pod is gone: changes of the source are not served.",
            "stale-sync.md",
        )
    ]


def queue_alerts() -> list[Alert]:
    refused = f"({rate('ray_matinee_refused_total', '5m')} or 0 * {selector('matinee:requests:rate5m')})"
    waits = rate("ray_matinee_queue_wait_ms_bucket", "5m", by=f"{BY_PART}, le")
    return [
        Alert(
            "MatineeQueueSaturated",
            f"histogram_quantile(0.95, {waits}) > <queue_wait>",
            "5m",
            "warning",
            "{{ $labels.application }}: requests queue up before the {{ $labels.part }}",
            "One in twenty waits {{ $value | humanize }} ms or more before it is worked on; <queue_wait> ms is expected at most.",
            "queue-saturation.md",
        ),
        Alert(
            "MatineeRefusing",
            f"{refused} / {selector('matinee:requests:rate5m')} > <refused>",
            "5m",
            "warning",
            "{{ $labels.application }}: the gateway is full",
            "{{ $value | humanizePercentage }} of the requests are refused with 503 because too many are under way.",
            "queue-saturation.md",
        ),
    ]


def index_alerts() -> list[Alert]:
    return [
        Alert(
            "MatineeIndexUnreachable",
            f"min by ({GROUP}, catalogue) ({selector('ray_matinee_index_up')}) == 0",
            "2m",
            "critical",
            "{{ $labels.application }}: the vector index of the catalogue {{ $labels.catalogue }} does not answer",
            "At least one Retriever gets no answer from Qdrant; searches through it fail with 503.",
            "qdrant-unreachable.md",
        ),
        Alert(
            "MatineeIndexStale",
            f"time() - max by ({GROUP}, catalogue) ({selector('ray_matinee_index_built_timestamp_seconds')}) > 3600 * <index_age>",
            "15m",
            "warning",
            "{{ $labels.application }}: the index of the catalogue {{ $labels.catalogue }} is old",
            "The version that is served was built {{ $value | humanizeDuration }} ago; <index_age> hours are expected at most.",
            "stale-index.md",
        ),
    ]


def model_alerts() -> list[Alert]:
    swaps = f"sum by ({BY_PART}) ({selector('ray_matinee_model_swap_failures_total')})"
    before = f"sum by ({BY_PART}) ({selector('ray_matinee_model_swap_failures_total')} offset 30m)"
    return [
        Alert(
            "MatineeModelSwapFailed",
            f"{swaps} - ({before} or 0 * {swaps}) > 0",
            "0s",
            "warning",
            "{{ $labels.application }}: the {{ $labels.part }} kept its old model",
            "{{ $value }} attempts of the last half hour to load another model failed; what was wanted is not what is served.",
            "model-swap-failure.md",
        ),
    ]


def replica_alerts() -> list[Alert]:
    healthy = selector("ray_serve_deployment_replica_healthy")
    target = f"max by ({BY_DEPLOYMENT}) ({selector('ray_serve_autoscaling_target_replicas')})"
    new = f"last_over_time({healthy}[15m]) unless last_over_time({healthy}[15m] offset 15m)"
    return [
        Alert(
            "MatineeReplicaCrashLoop",
            f"count by ({BY_DEPLOYMENT}) ({new}) > 2 * {target} + 2",
            "1m",
            "critical",
            "{{ $labels.application }}: replicas of {{ $labels.deployment }} start again and again",
            "{{ $value }} new replicas within 15 minutes are more than scaling and a roll-over explain.",
            "replica-crash-loop.md",
        ),
        Alert(
            "MatineeReplicasMissing",
            # Without a single healthy replica there may be no series at all.
            f"(sum by ({BY_DEPLOYMENT}) ({healthy}) or 0 * {target}) - {target} < 0",
            "15m",
            "warning",
            "{{ $labels.application }}: {{ $labels.deployment }} has fewer replicas than it should",
            "{{ $value }} against the target: pods can't be placed, or replicas don't start.",
            "replica-crash-loop.md",
        ),
    ]


def serve_alerts() -> list[Alert]:
    skew = f"max_over_time(abs({selector('ray_matinee_clock_skew_seconds')})[10m:1m])"
    return [
        Alert(
            "MatineeClockSkew",
            f"max by ({BY_PART}) ({skew}) > 1",
            "5m",
            "warning",
            "{{ $labels.application }}: the clocks of gateway and {{ $labels.part }} differ",
            "By {{ $value | humanize }} s or more. Expiring tokens, the order of writes and the times in traces and logs suffer.",
            "clock-skew.md",
        ),
        Alert(
            "MatineeDeploymentUnhealthy",
            f"min by ({BY_DEPLOYMENT}) ({selector('ray_serve_deployment_status')}) <= 2",
            "5m",
            "critical",
            "{{ $labels.application }}: {{ $labels.deployment }} is unhealthy or could not be deployed",
            "Ray Serve says {{ if eq $value 1.0 }}DEPLOY_FAILED{{ else }}UNHEALTHY{{ end }}.",
            "replica-crash-loop.md",
        ),
        Alert(
            "MatineePodCrashLoop",
            # Prometheus's own word on each scrape: of every pod that has our metrics, without kube-state-metrics.
            f"sum by (namespace, matinee_release, pod) (resets({selector('up')}[30m])) > 3",
            "0s",
            "warning",
            "{{ $labels.pod }} goes away again and again",
            "{{ $value | humanize }} times within half an hour it was there and then did not answer: it restarts, or is too busy.",
            "replica-crash-loop.md",
        ),
    ]
