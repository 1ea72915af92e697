"""A training run's curves: loss by step (the paper's Figure 3) and BLEU by epoch (its Figure 4), as CSV and pictures.

Reads what a run has logged (`progress.jsonl`), where resumed steps stand twice; knows neither models nor Ray.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from train.reporting.rows import LossRow

LOSS, EPOCHS = "loss.csv", "epochs.csv"


def losses(log: Path) -> list[LossRow]:
    """Step, loss and learning rate of the log's last run, each step once: of what was done again, the later."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    begins = [place for place, row in enumerate(rows) if row.get("from_step") == 0]
    steps = {row["step"]: row for row in rows[begins[-1] if begins else 0 :] if "loss" in row}
    return [{"step": step, "loss": steps[step]["loss"], "lr": steps[step].get("lr")} for step in sorted(steps)]


def write(out: Path, steps: Sequence[LossRow], epochs: Sequence[Mapping[str, float]]) -> None:
    """The CSV files and the pictures beside them."""
    _table(out / LOSS, steps)
    _table(out / EPOCHS, epochs)
    _picture(out / "loss.png", "training loss", "step", {"loss": [(row["step"], row["loss"]) for row in steps]})
    kinds = [kind for kind in ("bleu", "adherence", "clean") if any(kind in row for row in epochs)]
    lines = {kind: [(row["epoch"], row[kind]) for row in epochs if kind in row] for kind in kinds}
    _picture(out / "bleu.png", "on held-out items", "epoch", lines)


def _table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)


def _picture(path: Path, title: str, across: str, lines: dict[str, list[tuple[float, float]]]) -> None:
    # Without pyplot: it would look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), label=name, marker="o" if len(points) < 20 else None)
    axes.set(title=title, xlabel=across)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if lines:
        axes.legend()
    FigureCanvasAgg(figure).print_png(path)
