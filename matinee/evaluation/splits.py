"""A corpus: a catalogue's items with their split and franchise, as the training and evaluation jobs pass it on.

    prepared folder   items.jsonl, one `{"id", "split", "franchise", "pools", "item"}` a line (what `train.prepare` writes)
    BEIR folder       corpus.jsonl with `_id`, `title`, `text`, `metadata`

Splits are by franchise: a sequel never lies on the other side of its original. Does not read catalogue files (`catalogue`), and does
not know queries (`query_sets`).
"""

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_args

import orjson
from pydantic import ValidationError

from matinee import languages
from matinee.errors import SourceError
from matinee.files import write_jsonl
from matinee.items import NO_KIND, Item
from matinee.languages import ENGLISH
from matinee.languages.folding import fold
from matinee.patterns import message_of

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, slots=True)
class Entry:
    """An item as training sees it. `pools`: the kinds of labels it was judged for."""

    id: str
    item: Item
    split: Split
    franchise: str
    pools: tuple[str, ...] = ()


def franchise(title: str, language: str = ENGLISH) -> str:
    """What the titles of a series have in common: the title before its subtitle, without number, article and sequel words."""
    head = re.split(r":\s|\s[-–—]\s", title, maxsplit=1)[0]
    article, *endings = _series_patterns(language)
    key = article.sub("", fold(head))
    for pattern in endings:
        shorter = pattern.sub("", key).strip()
        # "Part II" alone, or "2012", is a title and no sequel's number.
        key = shorter if len(shorter) > 1 else key
    return key


@cache
def _series_patterns(language: str) -> tuple[re.Pattern[str], ...]:
    """An article in front, then the endings in the order in which they are cut off; the last one may stand twice."""
    series = languages.language(language).series
    articles, parts, sequels = (
        "|".join(re.escape(fold(word)) for word in words) for words in (series.articles, series.parts, series.sequels)
    )
    number = "|".join([r"\d{1,2}", "[ivx]{1,5}", *(re.escape(fold(word)) for word in series.numbers)])
    numbered = re.compile(rf"\b(?:{parts})\s++(?:{number})\b.*", re.DOTALL)
    sequel = re.compile(rf"(?<!\s)\s++(?:(?:{parts})\s++)?(?:{number})$|(?<!\s)\s++(?:{sequels})$")
    return re.compile(rf"^(?:{articles})\s+"), numbered, sequel, sequel


def order_key(*parts: object) -> bytes:
    """A place in an order that only `parts` decide."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).digest()


def assign_splits(entries: Sequence[Entry], *, seed: int = 0, test: float = 0.1, dev: float = 0.05) -> list[Entry]:
    """Whole franchises to test and dev, in an order that only the seed and their names decide, until each has its part of the items."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row, entry in enumerate(entries):
        groups[entry.franchise].append(row)
    sizes = {"test": math.floor(test * len(entries)), "dev": math.floor(dev * len(entries))}
    chosen: list[Split] = ["train"] * len(entries)
    for key in sorted(groups, key=lambda key: order_key(seed, key)):
        rows = groups[key]
        for split in ("test", "dev"):
            if len(rows) <= sizes[split]:
                sizes[split] -= len(rows)
                for row in rows:
                    chosen[row] = "test" if split == "test" else "dev"
                break
    return [replace(entry, split=split) for entry, split in zip(entries, chosen, strict=True)]


def read_entries(folder: Path, *, kind: str = NO_KIND) -> list[Entry]:
    """The entries of a prepared folder, or of a BEIR folder whose rows say their split. `kind`: of items whose BEIR rows say none."""
    path = folder / "items.jsonl"
    make = _prepared_entry
    if not path.is_file():
        path, make = folder / "corpus.jsonl", partial(_beir_entry, kind=kind)
    rows: list[Entry] = []
    number = 0
    try:
        for line in path.read_bytes().splitlines():
            number += 1
            if line.strip():
                rows.append(make(orjson.loads(line)))
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}; `python -m train.prepare` makes such a folder") from None
    except (orjson.JSONDecodeError, KeyError, TypeError, ValidationError) as error:
        raise SourceError(f"{path}, line {number}: {_reason(error)}; `python -m train.prepare` writes such a file") from None
    wrong = next((entry for entry in rows if entry.split not in SPLITS), None)
    if wrong is not None:
        raise SourceError(f"{path}: item {wrong.id} has the split {wrong.split!r}: use {', '.join(SPLITS)}")
    return rows


def _reason(error: Exception) -> str:
    """Why a line of a corpus is no entry, in words."""
    if isinstance(error, KeyError):
        return f"the field {error} is missing"
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, problem['loc']))}: {message_of(problem)}"
    return "not a JSON object with the fields of an item"


def write_entries(entries: Iterable[Entry], path: Path) -> None:
    """One line an entry, in the order given."""
    rows = ({"id": one.id, "split": one.split, "franchise": one.franchise, "pools": one.pools, "item": one.item.facts()} for one in entries)
    write_jsonl(path, rows)


def _prepared_entry(row: dict[str, Any]) -> Entry:
    return Entry(row["id"], Item.model_validate(row["item"]), row["split"], row["franchise"], tuple(row.get("pools", ())))


def _beir_entry(row: dict[str, Any], kind: str) -> Entry:
    facts = row.get("metadata", {})
    genres = facts.get("genres") or []
    names = [part.strip() for part in genres.split(",")] if isinstance(genres, str) else genres
    item = Item(
        id=row["_id"],
        kind=facts.get("kind") or kind,
        title=row["title"],
        year=facts.get("year"),
        genres=tuple(name for name in names if name),
        overview=row["text"],
        language=facts.get("language"),
        numbers={name: float(facts[name]) for name in ("popularity", "votes") if facts.get(name) is not None},
    )
    pools = tuple(sorted(name.removeprefix("judged_") for name, value in facts.items() if name.startswith("judged_") and value))
    return Entry(row["_id"], item, facts["split"], facts.get("franchise") or franchise(row["title"]), pools)
