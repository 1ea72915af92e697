"""Evaluation sets: queries and the items that answer them, as BEIR folders, and how to make one from what a user has.

    <set>/queries.jsonl       {"_id", "text", "metadata": {"item"?: ID, "split"}}
    <set>/qrels/<split>.tsv   query-id, corpus-id, score

A set named `item_*` asks with an item (`metadata.item`), any other one with its text. Made sets take their labels from something that is
NOT embedded: a user's own events, or a field that was kept out of the text. Does not rank and does not measure (`evaluation`).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import orjson

from matinee.errors import SourceError
from matinee.evaluation.splits import Entry, Split


@dataclass(frozen=True)
class QuerySet:
    """The queries of one split, with their relevant items."""

    name: str
    texts: dict[str, str]
    items: dict[str, str]
    relevant: dict[str, set[str]]

    @property
    def of_items(self) -> bool:
        return self.name.startswith("item_")

    @property
    def pool(self) -> str | None:
        """Which items were judged for this kind of label."""
        kind = self.name.partition("_")[2]
        return {"keyword": "kw", "colike": "colike", "tag": "colike"}.get(kind)


def set_names(folder: Path, split: str) -> list[str]:
    """The sets of a folder that have a split. Raises `SourceError` where there is no such folder; an empty one says that there are none."""
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder} of labelled queries: make one (`matinee evalset make --help`), or name none")
    return sorted(path.parent.parent.name for path in folder.glob(f"*/qrels/{split}.tsv"))


def read_set(folder: Path, name: str, split: str) -> QuerySet:
    """One set of a folder of sets. Raises `SourceError` where it is malformed."""
    path = folder / name / "qrels" / f"{split}.tsv"
    relevant: dict[str, set[str]] = defaultdict(set)
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[1:], 2):
            cells = line.split("\t")
            if len(cells) != 3:
                raise SourceError(f"{path}, line {number}: not three columns (query-id, corpus-id, score)")
            if float(cells[2]) > 0:
                relevant[cells[0]].add(cells[1])
        rows = [orjson.loads(line) for line in (folder / name / "queries.jsonl").read_bytes().splitlines()]
        wanted = [row for row in rows if row["_id"] in relevant]
        items = {row["_id"]: str(row["metadata"]["item"]) for row in wanted if (row.get("metadata") or {}).get("item")}
        texts = {row["_id"]: str(row["text"]) for row in wanted}
    except OSError as error:
        raise SourceError(f"cannot read the set {name}: {error.strerror} ({error.filename})") from None
    except ValueError as error:
        raise SourceError(f"the set {name} in {folder} is malformed: {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise SourceError(f"the set {name} in {folder} is malformed: a line of queries.jsonl has no _id and text, or no object") from None
    lost = relevant.keys() - texts.keys()
    if lost:
        raise SourceError(f"{path}: query {min(lost)} is not in queries.jsonl")
    return QuerySet(name, texts, items, {query: relevant[query] for query in texts})


def write_set(folder: Path, name: str, sets: dict[Split, QuerySet]) -> None:
    """The splits of one set; empty ones have no qrels file."""
    qrels = folder / name / "qrels"
    qrels.mkdir(parents=True, exist_ok=True)
    with (folder / name / "queries.jsonl").open("wb") as out:
        for split, queries in sets.items():
            for id, text in queries.texts.items():
                metadata = {"split": split} | ({"item": queries.items[id]} if id in queries.items else {})
                out.write(orjson.dumps({"_id": id, "text": text, "metadata": metadata}, option=orjson.OPT_APPEND_NEWLINE))
    for split, queries in sets.items():
        if queries.relevant:
            lines = [f"{query}\t{item}\t1" for query, items in queries.relevant.items() for item in sorted(items)]
            (qrels / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines, ""]), encoding="utf-8")


def from_colikes(entries: Sequence[Entry], likes: Iterable[tuple[str, str]], *, least: int = 5, z: float = 3.0) -> dict[Split, QuerySet]:
    """`item_colike`: items that the same people liked, from (user, item) events.

    A pair counts with `least` people or more, and when they are `z` standard deviations more than chance gives two items so popular.
    """
    known = {entry.id for entry in entries}
    baskets: dict[str, set[str]] = defaultdict(set)
    for user, item in likes:
        if item in known:
            baskets[user].add(item)
    single = Counter(item for basket in baskets.values() for item in basket)
    # The square of a very long list says little about taste, and costs the most.
    pairs = Counter(pair for basket in baskets.values() if len(basket) <= 500 for pair in combinations(sorted(basket), 2))
    related: dict[str, set[str]] = defaultdict(set)
    for (a, b), count in pairs.items():
        expected = single[a] * single[b] / max(1, len(baskets))
        if count >= least and (count - expected) / math.sqrt(expected) >= z:
            related[a].add(b)
            related[b].add(a)
    return _by_split("item_colike", entries, related)


def from_clicks(entries: Sequence[Entry], clicks: Iterable[tuple[str, str]], *, least: int = 2) -> dict[Split, QuerySet]:
    """`text_click`: what people searched for, and what they then chose, from (text, item) events; `least` choices make a label."""
    splits = {entry.id: entry.split for entry in entries}
    counts = Counter((" ".join(text.casefold().split()), item) for text, item in clicks if item in splits and text.strip())
    relevant: dict[str, set[str]] = defaultdict(set)
    for (text, item), count in counts.items():
        if count >= least:
            relevant[text].add(item)
    return _texts_by_split("text_click", relevant, splits)


def from_field(entries: Sequence[Entry], field: str, *, most: float = 0.02) -> dict[Split, QuerySet]:
    """`text_FIELD`: each value of a field (of `extra` or `people`) -> the items that carry it. Values on more than `most` of all items say
    too little. Raises `SourceError` where no item has the field."""
    splits = {entry.id: entry.split for entry in entries}
    carriers: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        given = entry.item.extra.get(field) or entry.item.people.get(field) or ()
        for value in given.split(",") if isinstance(given, str) else given:
            if value.strip():
                carriers[value.strip().casefold()].add(entry.id)
    if not carriers:
        raise SourceError(f"no item has a field {field!r} in its extra facts or people")
    limit = max(3, most * len(entries))
    return _texts_by_split(f"text_{field}", {value: ids for value, ids in carriers.items() if 2 <= len(ids) <= limit}, splits)


def _by_split(name: str, entries: Sequence[Entry], related: dict[str, set[str]]) -> dict[Split, QuerySet]:
    sets: dict[Split, QuerySet] = {}
    for split in ("train", "dev", "test"):
        asked = {entry.id: entry.item.title for entry in entries if entry.split == split and related.get(entry.id)}
        sets[split] = QuerySet(name, asked, {id: id for id in asked}, {id: related[id] for id in asked})
    return sets


def _texts_by_split(name: str, relevant: dict[str, set[str]], splits: dict[str, Split]) -> dict[Split, QuerySet]:
    """A text belongs to the split of most of its items; the training side then keeps only the training items, the others all."""
    sets: dict[Split, QuerySet] = {split: QuerySet(name, {}, {}, {}) for split in ("train", "dev", "test")}
    for text, ids in sorted(relevant.items()):
        counts = Counter(splits[id] for id in ids)
        # Weighed by rarity: test items are few, and a text that only had to have most of its items there would never be a test text.
        totals = Counter(splits.values())
        split = max(counts, key=lambda split: (counts[split] / totals[split], split))
        kept = {id for id in ids if split != "train" or splits[id] == "train"}
        sets[split].texts[text] = text
        sets[split].relevant[text] = kept
    return sets
