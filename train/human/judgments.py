"""What people prefer, as pairs that may train: filled-in preference sheets -> item, the better description, the worse one.

Only of items of the train split; anything else is refused with its file and line. Raters of the same two descriptions vote. Does not ask
(`train.human.rating_sheets`), does not need the key (which model wrote a text is of no importance here), and does not
train (`train.generation.dpo`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matinee.errors import SourceError
from matinee.evaluation.splits import Entry
from matinee.files import read_jsonl, write_jsonl
from matinee.items import Item
from matinee.languages import ENGLISH
from matinee.text import fact_checks
from train.human.rating_sheets import PREFERENCE, Sheet, read_sheet


@dataclass(frozen=True, slots=True)
class Judgment:
    """Of two descriptions of one item, the one that people chose."""

    id: str
    item: Item
    chosen: str
    rejected: str


def collect(paths: Sequence[Path], entries: Mapping[str, Entry], language: str = ENGLISH) -> tuple[list[Judgment], dict[str, int]]:
    """The judgments of all sheets, and what was counted on the way. Raises `SourceError`."""
    votes: dict[tuple[str, frozenset[str]], Counter[str]] = {}
    counts = Counter({"answers": 0, "unanswered": 0, "ties": 0})
    for sheet in map(_read_preferences, dict.fromkeys(paths)):
        for row, line in zip(sheet.rows, sheet.lines, strict=True):
            entry = _training_entry(row["item"], entries, f"{sheet.path}, line {line}")
            tally = votes.setdefault((entry.id, frozenset((row["a"], row["b"]))), Counter())
            counts["answers" if row["preference"] else "unanswered"] += 1
            counts["ties"] += row["preference"] == "tie"
            if row["preference"] in ("a", "b"):
                tally[row[row["preference"]]] += 1
    decided = [_decide(entries[id], texts, tally) for (id, texts), tally in votes.items()]
    judgments = sorted((judgment for judgment in decided if judgment), key=lambda judgment: (judgment.id, judgment.chosen))
    if not judgments:
        raise SourceError(f"nobody prefers one description to another in {', '.join(map(str, paths))} ({dict(counts)}): nothing to learn")
    # People may prefer an invention. It is counted here; the guard of `train.preference` measures what it does to the model.
    invented = sum(bool(fact_checks.violations(judgment.chosen, judgment.item, language)) for judgment in judgments)
    return judgments, dict(counts) | {
        "judgments": len(judgments),
        "undecided": len(votes) - len(judgments),
        "chosen_with_violation": invented,
    }


def _read_preferences(path: Path) -> Sheet:
    sheet = read_sheet(path)
    if sheet.form is not PREFERENCE:
        raise SourceError(
            f"{path} is a sheet of {sheet.form.name}: those judge models on test items and never train; "
            "make preference sheets with `python -m train.ratings sheets --split train`"
        )
    for row, line in zip(sheet.rows, sheet.lines, strict=True):
        if not row["a"] or not row["b"] or row["a"] == row["b"]:
            raise SourceError(f"{path}, line {line}: item {row['item']} needs two descriptions that differ")
    return sheet


def _training_entry(id: str, entries: Mapping[str, Entry], where: str) -> Entry:
    entry = entries.get(id)
    if entry is None:
        raise SourceError(f"{where}: item {id} is not in the prepared catalogue: name the one that the sheets were made of")
    if entry.split != "train":
        raise SourceError(f"{where}: item {id} is of the {entry.split} split: what people say of it must not train")
    return entry


def _decide(entry: Entry, texts: frozenset[str], votes: Counter[str]) -> Judgment | None:
    """The one with more votes; `None` for a draw."""
    first, second = sorted(texts)
    if votes[first] == votes[second]:
        return None
    chosen, rejected = (first, second) if votes[first] > votes[second] else (second, first)
    return Judgment(entry.id, entry.item, chosen, rejected)


def write_judgments(judgments: Sequence[Judgment], path: Path) -> None:
    write_jsonl(path, ({"id": one.id, "item": one.item.facts(), "chosen": one.chosen, "rejected": one.rejected} for one in judgments))


def read_judgments(path: Path) -> list[Judgment]:
    return [Judgment(row["id"], Item.model_validate(row["item"]), row["chosen"], row["rejected"]) for row in read_jsonl(path)]
