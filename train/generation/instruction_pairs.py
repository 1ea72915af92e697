"""The enhancer's training pairs: an item as the enhancer sees it, and the text that it should write; and their files.

Three targets: the overview, a teacher's description, or what other people wrote of the item. Does not choose how many
(`train.instructions`) and does not tokenise (`train.generation.completions`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matinee.evaluation.query_sets import QuerySet, SetInfo, read_set, set_names
from matinee.evaluation.splits import Entry, Split
from matinee.files import read_jsonl, write_jsonl
from matinee.items import Item
from matinee.models.descriptions import description_rows
from matinee.text import fact_checks, templates
from train.jobs.training_items import TrainingItems

Target = Literal["overview", "teacher", "words"]
InputFields = Literal["facts", "title"]

GUARD = "dev.jsonl"
"""The file that guards `train.preference`."""


@dataclass(frozen=True, slots=True)
class InstructionPair:
    """An item, and the text to write of it. `ends`: whether the text is the whole answer, after which the model should stop."""

    id: str
    item: Item
    text: str
    ends: bool = True


def items_of(entries: Sequence[Entry], split: Split) -> dict[str, Item]:
    """The items of one split; which ones may be trained on is `train.jobs.training_items`' decision."""
    chosen = TrainingItems(entries).entries if split == "train" else [entry for entry in entries if entry.split == split]
    return {entry.id: entry.item for entry in chosen}


def make_pairs(
    items: Mapping[str, Item], target: Target, fields: InputFields, sets: Path | None, teacher: Path | None, split: Split, language: str
) -> tuple[list[InstructionPair], dict[str, Any]]:
    """The pairs of some items, and counts for the manifest."""
    if target == "overview":
        return list(_overviews(items, fields)), {}
    if target == "teacher" and teacher is not None:
        return _by_teacher(items, teacher, language)
    assert sets is not None  # noqa: S101
    return _by_people(items, sets, split)


def _overviews(items: Mapping[str, Item], fields: InputFields) -> Iterator[InstructionPair]:
    for id, item in items.items():
        known = Item(kind=item.kind, title=item.title) if fields == "title" else item.model_copy(update={"overview": ""})
        if item.overview:
            yield InstructionPair(id, known, item.overview)


def _by_teacher(items: Mapping[str, Item], path: Path, language: str) -> tuple[list[InstructionPair], dict[str, Any]]:
    """What a teacher wrote of these items, if the metadata bears it out."""
    pairs, refused = {}, Counter[str]()
    for row in description_rows(path):
        item = items.get(row.id)
        if item is None or row.source == "template":
            continue
        text = templates.one_line(row.text)
        problems = fact_checks.violations(text, item, language)
        refused.update({problem.partition(":")[0] for problem in problems})
        if not problems:
            pairs[row.id] = InstructionPair(row.id, item, text)
    return list(pairs.values()), {"refused": dict(refused)}


def word_sets(folder: Path, split: Split) -> list[QuerySet]:
    """The sets of `words` that have this split, in the order in which an item's text tells them: keywords, then sentences; the set with the
    greatest weight comes last."""
    sets = [read_set(folder, name, split) for name in set_names(folder, split)]
    usable = [queries for queries in sets if queries.trainable and not queries.of_items]
    return sorted(usable, key=lambda queries: (queries.info.texts == "sentences", queries.info.weight, queries.name))


def _by_people(items: Mapping[str, Item], folder: Path, split: Split) -> tuple[list[InstructionPair], dict[str, Any]]:
    """All that other people wrote of an item, as one text.

    Few items have all kinds, and what nobody wrote must not be taught as an end: only a text with the last kind in it is whole.
    """
    sets = {queries.name: queries for queries in word_sets(folder, split)}
    known = {name: _texts_of(items, queries) for name, queries in sets.items()}
    texts = {
        id: {name: _sentence(sets[name].info, written[id]) for name, written in known.items() if id in written}
        for id in sorted({id for written in known.values() for id in written})
    }
    last = next(reversed(known), None)
    pairs = [InstructionPair(id, items[id], " ".join(parts.values()), ends=last in parts) for id, parts in texts.items()]
    return pairs, {"sources": {name: len(written) for name, written in known.items()}}


def _texts_of(items: Mapping[str, Item], queries: QuerySet) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for query, relevant in queries.relevant.items():
        about = queries.items.get(query)
        # A query about a test item is its words, so it stays out even where a qrel is wrong.
        if about is not None and about not in items:
            continue
        for id in relevant & items.keys():
            texts.setdefault(id, []).append(queries.texts[query])
    return texts


def _sentence(kind: SetInfo, texts: Sequence[str]) -> str:
    """A kind of words as sentences; keywords and searches on one line, each once, those of a pair by themselves."""
    if kind.texts == "sentences":
        return templates.join_sentences(texts[0])
    words = dict.fromkeys(word.strip() for text in sorted(texts) for word in text.split(",") if word.strip())
    line = ", ".join(words)
    return templates.join_sentences(line[:1].upper() + line[1:])


def write_pairs(pairs: Sequence[InstructionPair], path: Path) -> None:
    write_jsonl(
        path,
        ({"id": pair.id, "item": pair.item.facts(), "text": templates.one_line(pair.text), "ends": pair.ends} for pair in pairs),
    )


def read_pairs(path: Path) -> list[InstructionPair]:
    return [InstructionPair(row["id"], Item.model_validate(row["item"]), row["text"], row["ends"]) for row in read_jsonl(path)]
