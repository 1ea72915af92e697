"""What people's answers say: the paper's Table 3 and Figure 5, or how often which description was preferred, and how far raters agree.

Opens the key, so it is for the time after the last answer. An answer that is missing, doubled or out of range is refused with its file
and line; no figure is made of a part of a sheet. Does not draw items (`train.human.rating_sheets`) and does not
ask (`train.human.rating_page`).
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, get_args

from matinee.errors import SourceError
from matinee.evaluation import metrics
from train.human.agreement import agreement
from train.human.rating_sheets import CRITERIA, KEY, PREFERENCE, RATINGS, Form, Model, Sheet, read_key, read_sheet, sheet_paths
from train.reporting import paper
from train.reporting.render import render

HTML, MARKDOWN = (Path(__file__).with_name(f"ratings_report.{kind}.j2") for kind in ("html", "md"))

MODELS: tuple[Model, ...] = get_args(Model)
NAMES = {"base": "base", "tuned": "fine-tuned"}


@dataclass(frozen=True)
class RaterAnswer:
    """One value that one rater gave: of a model's description (ratings), or of the two of an item (preference: base, tuned or tie)."""

    rater: str
    item: str
    model: str
    question: str
    value: str


def collect(folder: Path, *, finished_only: bool = False) -> tuple[Form, list[RaterAnswer], list[str]]:
    """Every answer with its model's name, and the raters that were left out because they are not done yet."""
    key = read_key(folder)
    sheets = [read_sheet(path) for path in sheet_paths(folder)]
    form = key.form
    for sheet in sheets:
        _check_sheet(sheet, form, key.raters)
    lost = sorted(set(key.raters) - {sheet.rater for sheet in sheets})
    if lost and not finished_only:
        raise SourceError(f"{folder / 'sheets'} lacks the sheet of {', '.join(lost)}: put it back, or leave it out with --finished-only")
    waiting = [sheet for sheet in sheets if sheet.done < len(sheet.rows)]
    if waiting and (not finished_only or len(waiting) == len(sheets)):
        sheet = waiting[0]
        row, line = next((row, line) for row, line in zip(sheet.rows, sheet.lines, strict=True) if not form.done(row))
        ask = next(ask for ask in form.asks if not row[ask])
        others = " --finished-only leaves out whoever is not done" if len(waiting) < len(sheets) else ""
        raise SourceError(f"{sheet.path}, line {line}: no {ask} for item {row['item']}; fill it in, then report.{others}")
    answers = [answer for sheet in sheets if sheet not in waiting for answer in _unblind(sheet, key.raters[sheet.rater])]
    return form, answers, sorted([*lost, *(sheet.rater for sheet in waiting)])


def _check_sheet(sheet: Sheet, form: Form, raters: Mapping[str, Mapping[str, Model]]) -> None:
    if sheet.form is not form:
        raise SourceError(f"{sheet.path} asks for {sheet.form.name}, but {KEY} is of a {form.name} round: it is of another folder")
    if sheet.rater not in raters:
        raise SourceError(f"{sheet.path}: {KEY} has no rater {sheet.rater}, so nobody knows which model A was: was the file renamed?")
    first = raters[sheet.rater]
    for row, line in zip(sheet.rows, sheet.lines, strict=True):
        if row["item"] not in first:
            raise SourceError(f"{sheet.path}, line {line}: item {row['item']} was not handed out to {sheet.rater}")
    missing = sorted(set(first) - {row["item"] for row in sheet.rows})
    if missing:
        raise SourceError(f"{sheet.path} lacks the row of item {missing[0]}, and {len(missing) - 1} more: put back what was deleted")


def _unblind(sheet: Sheet, first: Mapping[str, Model]) -> Iterator[RaterAnswer]:
    for row in sheet.rows:
        a = first[row["item"]]
        sides = {"a": a, "b": "tuned" if a == "base" else "base"}
        for ask in sheet.form.asks:
            if sheet.form is PREFERENCE:
                yield RaterAnswer(sheet.rater, row["item"], "", ask, sides.get(row[ask], row[ask]))
            else:
                criterion, _, side = ask.rpartition("_")
                yield RaterAnswer(sheet.rater, row["item"], sides[side], criterion, row[ask])


def figures(form: Form, answers: Sequence[RaterAnswer]) -> dict[str, Any]:
    """Everything that the report says, as plain values."""
    raters, items = sorted({answer.rater for answer in answers}), {answer.item for answer in answers}
    results: dict[str, Any] = {"form": form.name, "raters": raters, "items": len(items), "agreement": {}}
    values = form.values if form is RATINGS else (*MODELS, "tie")
    for question in CRITERIA if form is RATINGS else form.asks:
        by_rater: dict[str, dict[str, str]] = {rater: {} for rater in raters}
        for answer in answers:
            if answer.question == question:
                by_rater[answer.rater][f"{answer.item} {answer.model}"] = answer.value
        results["agreement"][question] = asdict(agreement(by_rater, values, ordered=form is RATINGS))
    return results | ({"table3": _table3(answers)} if form is RATINGS else {"preference": _count_preferences(answers)})


def _table3(answers: Sequence[RaterAnswer]) -> list[dict[str, Any]]:
    rows = []
    for criterion in CRITERIA:
        row: dict[str, Any] = {"criterion": criterion}
        by_item: dict[str, dict[str, float]] = {}
        for model in MODELS:
            ratings = [(a.item, int(a.value)) for a in answers if a.question == criterion and a.model == model]
            values = [value for _, value in ratings]
            row[model] = {"mean": fmean(values), "sd": stdev(values) if len(values) > 1 else 0.0, "ratings": len(values)}
            groups = groupby(sorted(ratings), key=lambda pair: pair[0])
            by_item[model] = {item: fmean(value for _, value in group) for item, group in groups}
        # Over items: raters of one item say much the same, so their ratings are no independent draws.
        row["difference"] = asdict(metrics.paired_difference(by_item["tuned"], by_item["base"]))
        rows.append(row)
    return rows


def _count_preferences(answers: Sequence[RaterAnswer]) -> dict[str, Any]:
    worth = {"tuned": 1.0, "tie": 0.5, "base": 0.0}
    groups = groupby(sorted(answers, key=lambda a: a.item), key=lambda a: a.item)
    by_item = {item: fmean(worth[answer.value] for answer in group) for item, group in groups}
    counts = {name: sum(answer.value == name for answer in answers) for name in worth}
    return counts | {"share_tuned": asdict(metrics.interval(by_item.values()))}


def markdown(results: Mapping[str, Any]) -> str:
    """The tables for docs/experiments.md."""
    return render(MARKDOWN, **_layout(results))


def html(results: Mapping[str, Any], figure: str | None) -> str:
    """The report as one page; nothing is fetched from anywhere. `figure` is an SVG of `figure5`."""
    return render(HTML, **_layout(results), figure=figure)


def _layout(results: Mapping[str, Any]) -> dict[str, Any]:
    return {"table3": None, "preference": None, **results, "models": MODELS, "paper": paper.RATINGS, "paper_kappa": paper.KAPPA}


def figure5(results: Mapping[str, Any]) -> str:
    """Mean ratings with standard deviations as error bars, as an SVG."""
    # Its import takes a second, and only this needs it.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # The same ratings give the same bytes.
    with rc_context({"svg.hashsalt": "figure5", "font.size": 10}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for place, (model, colour) in enumerate(zip(MODELS, ("#9aa5b1", "#2563eb"), strict=True)):
            bars = [row[model] for row in results["table3"]]
            where = [group + (place - 0.5) * 0.38 for group in range(len(bars))]
            heights, errors = [bar["mean"] for bar in bars], [bar["sd"] for bar in bars]
            axes.bar(where, heights, 0.36, yerr=errors, capsize=4, color=colour, label=NAMES[model])
        axes.set_xticks(range(len(CRITERIA)), CRITERIA)
        axes.set_ylim(0, 6)
        axes.set_yticks(range(1, 6))
        axes.set_ylabel("rating, mean and standard deviation")
        axes.legend(frameon=False, ncols=2, loc="upper left")
        axes.spines[["top", "right"]].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    # Without the XML prologue it stands in a page as well as alone.
    return out.getvalue()[out.getvalue().index("<svg") :]
