"""Evaluation sets: queries and the items that answer them, as BEIR folders, and how to make one from what a user has.

    <set>/queries.jsonl       {"_id", "text", "metadata": {"item"?: ID, "split"}}
    <set>/qrels/<split>.tsv   query-id, corpus-id, score
    <set>/set.json            what the set is (`SetInfo`): {"kind": "text" | "item", "texts", "pool", "trainable", "weight"}

Without `set.json` a set asks with the text of its queries. `metadata.item` alone makes no item set: a query text about one known item
names that item too. A set without `set.json` that looks like an item set is refused.

Made sets take their labels from something that is NOT embedded: a user's own events, or a field that was kept out of the text. Does not
rank and does not measure (`scoring`, `metrics`).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from matinee.errors import SourceError
from matinee.evaluation.splits import Entry, Split
from matinee.files import read_jsonl, write_jsonl
from matinee.patterns import message_of

_DEVIATIONS = 3.0
_COMMONEST = 0.02


class SetInfo(BaseModel):
    """What a set is: its `set.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["text", "item"] = Field("text", description="what a query asks with: its text, or its `metadata.item`")
    texts: Literal["keywords", "sentences"] = Field("keywords", description="what a query's text is: keywords, or sentences about one item")
    pool: str | None = Field(None, description="the pool of the corpus whose items were judged for these labels; null: all items")
    trainable: bool = Field(True, description="whether training may use the set's training side; false: it is there to be judged by")
    weight: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="share of the set among the sources of train.triplets; 0 leaves it out"
    )


@dataclass(frozen=True)
class QuerySet:
    """The queries of one split, with their relevant items. `declared` is the content of `set.json`, where there is one."""

    name: str
    texts: dict[str, str]
    items: dict[str, str]
    relevant: dict[str, set[str]]
    declared: SetInfo | None = None

    @property
    def info(self) -> SetInfo:
        return self.declared or SetInfo()

    @property
    def of_items(self) -> bool:
        return self.info.kind == "item"

    @property
    def pool(self) -> str | None:
        return self.info.pool

    @property
    def trainable(self) -> bool:
        return self.info.trainable

    def restricted_to(self, ids: Set[str]) -> Self:
        """The queries that have an answer among these items, with those answers alone. An item that asks must be one of them too."""
        answers = {query: relevant & ids for query, relevant in self.relevant.items()}
        kept = {query: known for query, known in answers.items() if known and (not self.of_items or self.items[query] in ids)}
        return replace(self, items={query: item for query, item in self.items.items() if query in kept}, relevant=kept)


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
        labelled = [row for row in read_jsonl(folder / name / "queries.jsonl") if row["_id"] in relevant]
        items = {row["_id"]: str(row["metadata"]["item"]) for row in labelled if (row.get("metadata") or {}).get("item")}
        texts = {row["_id"]: str(row["text"]) for row in labelled}
    except OSError as error:
        raise SourceError(
            f"cannot read the set {name}: {error.strerror} ({error.filename}); `matinee evalset make` writes a whole set"
        ) from None
    except ValueError as error:
        raise SourceError(f"the set {name} in {folder} is malformed: {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise SourceError(f"the set {name} in {folder} is malformed: a line of queries.jsonl has no _id and text, or no object") from None
    lost = relevant.keys() - texts.keys()
    if lost:
        raise SourceError(f"{path}: query {min(lost)} is not in queries.jsonl")
    queries = QuerySet(name, texts, items, {query: relevant[query] for query in texts}, _read_info(folder / name / "set.json"))
    nameless = [query for query in texts if query not in items] if queries.declared and queries.of_items else []
    if nameless:
        raise SourceError(
            f"the set {name} in {folder} has the kind item (set.json), but query {nameless[0]} has no metadata.item: "
            "add it in queries.jsonl, or write the kind text"
        )
    if queries.declared is None and _looks_like_items(queries):
        advice = (
            f'write {folder / name / "set.json"} with {{"kind": "item"}} if a query is an item, or {{"kind": "text"}} if it is its text'
        )
        raise SourceError(f"the set {name} in {folder} can be read in two ways: {advice}")
    return queries


def _looks_like_items(queries: QuerySet) -> bool:
    """Every query names an item that is none of its own answers: texts about a known item have that item as an answer."""
    return bool(queries.relevant) and all(queries.items.get(query, "") not in {"", *ids} for query, ids in queries.relevant.items())


def _read_info(path: Path) -> SetInfo | None:
    try:
        return SetInfo.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise SourceError(f"{path}: {where}: {message_of(problem)}; it holds {', '.join(SetInfo.model_fields)}") from None


def set_files(folder: Path, names: Iterable[str], splits: Iterable[str]) -> list[Path]:
    """The files that decide what `read_set` gives for these sets and splits, as far as they are there: a changed one is another set."""
    parts = ["set.json", "queries.jsonl", *(f"qrels/{split}.tsv" for split in splits)]
    return [path for name in dict.fromkeys(names) for part in parts if (path := folder / name / part).is_file()]


def write_set(folder: Path, name: str, sets: dict[Split, QuerySet]) -> None:
    """The splits of one set and its `set.json`; empty splits have no qrels file."""
    qrels = folder / name / "qrels"
    qrels.mkdir(parents=True, exist_ok=True)
    info = next((queries.info for queries in sets.values()), SetInfo())
    (folder / name / "set.json").write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    rows = (
        {"_id": id, "text": text, "metadata": {"split": split} | ({"item": queries.items[id]} if id in queries.items else {})}
        for split, queries in sets.items()
        for id, text in queries.texts.items()
    )
    write_jsonl(folder / name / "queries.jsonl", rows)
    for split, queries in sets.items():
        if queries.relevant:
            lines = [f"{query}\t{item}\t1" for query, items in queries.relevant.items() for item in sorted(items)]
            (qrels / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines, ""]), encoding="utf-8")


def from_colikes(entries: Sequence[Entry], likes: Iterable[tuple[str, str]], *, least: int = 5) -> dict[Split, QuerySet]:
    """`item_colike`: items that the same people liked, from (user, item) events.

    A pair counts with `least` people or more, and when they are three standard deviations more than chance gives two items so popular.
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
        if count >= least and (count - expected) / math.sqrt(expected) >= _DEVIATIONS:
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


def from_field(entries: Sequence[Entry], field: str) -> dict[Split, QuerySet]:
    """`text_FIELD`: each value of a field (of `extra` or `people`) -> the items that carry it. Values on more than 2 % of all items say
    too little. Raises `SourceError` where no item has the field."""
    splits = {entry.id: entry.split for entry in entries}
    carriers: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        values = entry.item.extra.get(field) or entry.item.people.get(field) or ()
        for value in values.split(",") if isinstance(values, str) else values:
            if value.strip():
                carriers[value.strip().casefold()].add(entry.id)
    if not carriers:
        raise SourceError(f"no item has a field {field!r} in its extra facts or people")
    limit = max(3, _COMMONEST * len(entries))
    return _texts_by_split(f"text_{field}", {value: ids for value, ids in carriers.items() if 2 <= len(ids) <= limit}, splits)


def _by_split(name: str, entries: Sequence[Entry], related: dict[str, set[str]]) -> dict[Split, QuerySet]:
    """Weight 0: no text says who liked an item, and training on likes made the text sets worse (docs/experiments.md)."""
    sets: dict[Split, QuerySet] = {}
    for split in ("train", "dev", "test"):
        titles = {entry.id: entry.item.title for entry in entries if entry.split == split and related.get(entry.id)}
        sets[split] = QuerySet(name, titles, {id: id for id in titles}, {id: related[id] for id in titles}, SetInfo(kind="item", weight=0))
    return sets


def _texts_by_split(name: str, relevant: dict[str, set[str]], splits: dict[str, Split]) -> dict[Split, QuerySet]:
    """A text belongs to the split of most of its items; the training side then keeps only the training items, the others all."""
    sets: dict[Split, QuerySet] = {split: QuerySet(name, {}, {}, {}, SetInfo()) for split in ("train", "dev", "test")}
    for text, ids in sorted(relevant.items()):
        counts = Counter(splits[id] for id in ids)
        # Weighed by rarity: test items are few, and a text that only had to have most of its items there would never be a test text.
        totals = Counter(splits.values())
        split = max(counts, key=lambda split: (counts[split] / totals[split], split))
        kept = {id for id in ids if split != "train" or splits[id] == "train"}
        sets[split].texts[text] = text
        sets[split].relevant[text] = kept
    return sets
