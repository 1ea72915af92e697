"""The evaluation report as Markdown and as one self-contained HTML page. Computes no figure: it lays out what `train.evaluate` measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matinee.evaluation.metrics import Measure
from train.reporting.render import interval, render
from train.reporting.rows import FixedFusionRow, HybridRow, SetRow

Results = Mapping[str, Any]
"""What `report.json` holds."""

HTML, MARKDOWN = (Path(__file__).with_name(f"report.{kind}.j2") for kind in ("html", "md"))

_COLOURS = {
    "after + facts": "#1e40af",
    "after": "#2563eb",
    "before + facts": "#64748b",
    "before": "#9aa5b1",
    "BM25": "#d97706",
    "TF-IDF": "#a16207",
    "vote count": "#94a3b8",
    "random": "#cbd5e1",
}


def markdown(results: Results) -> str:
    """The tables for docs/experiments.md."""
    return render(MARKDOWN, **results, **_derive(results), best_hybrids=_best(results["hybrids"]))


def html(results: Results) -> str:
    """The whole report; nothing is fetched from anywhere."""
    charts = [bar_chart(results["table1"], "recall", "Recall@10"), bar_chart(results["table1"], "ndcg", "NDCG@10")]
    hybrid_sets = list(results["hybrids"][0]["sets"]) if results["hybrids"] else []
    return render(HTML, **results, **_derive(results), charts=charts, hybrid_sets=hybrid_sets)


def _derive(results: Results) -> dict[str, Any]:
    ablation = results["ablation"]
    note = ""
    if ablation["rows"]:
        note = (
            f"{ablation['described']} items are described; `described` ranks these only, in `all items` the {ablation['raw']} others keep "
            "their raw text, which favours what was described. Differences are paired, to the raw text of the same way."
        )
    return {"fixed_fusions": _fixed_fusions(results["hybrids"]), "ablation_note": note}


def _fixed_fusions(rows: Sequence[HybridRow]) -> list[FixedFusionRow]:
    """Set by set, the fusions that were fixed beforehand, which alone have intervals."""
    return [
        {"system": row["system"], "fusion": row["fusion"], "set": name, **measured, "minus_before": row.get("minus_before", {}).get(name)}
        for row in rows
        for name, measured in row.get("intervals", {}).items()
    ]


def _best(rows: Sequence[HybridRow]) -> list[HybridRow]:
    return [row for name in ("before", "after") for row in [row for row in rows if row["system"] == name][:3]]


@dataclass(frozen=True)
class Bar:
    """A bar with its interval, in the picture's coordinates: `top`, `low` and `high` are counted from above."""

    x: int
    top: float
    low: float
    high: float
    colour: str
    label: str


@dataclass(frozen=True)
class BarChart:
    """Grouped bars, ready to be drawn by the macro of this name."""

    label: str
    width: int
    height: int
    ticks: list[tuple[str, float]]
    bars: list[Bar]
    groups: list[tuple[str, int]]
    legend: list[tuple[str, str]]


def bar_chart(rows: Sequence[SetRow], measure: Measure, label: str) -> BarChart:
    """One group a set and one bar a system, over all items."""
    rows = [row for row in rows if row["items"] == "all items"]
    sets = list(dict.fromkeys(row["set"] for row in rows))
    systems = [name for name in _COLOURS if any(row["system"] == name for row in rows)][::-1]
    bar, gap, height = 16, 30, 220
    group = bar * len(systems) + gap

    def y(value: float) -> float:
        return round(20 + height * (1 - value), 1)

    bars = [
        Bar(
            x=42 + group * sets.index(row["set"]) + bar * systems.index(row["system"]),
            top=y(row[measure]["mean"]),
            low=y(row[measure]["low"]),
            high=y(row[measure]["high"]),
            colour=_COLOURS[row["system"]],
            label=f"{row['system']}: {interval(row[measure])}",
        )
        for row in rows
        if row["system"] in systems
    ]
    return BarChart(
        label=label,
        width=max(50 + group * len(sets), 42 + 110 * len(systems)),
        height=height,
        ticks=[(f"{tick:g}", y(tick)) for tick in (0, 0.25, 0.5, 0.75, 1)],
        bars=bars,
        groups=[(name, 42 + group * place) for place, name in enumerate(sets)],
        legend=[(name, _COLOURS[name]) for name in systems],
    )
