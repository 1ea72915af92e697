"""Make the enhancer's training pairs: an item as the enhancer is told of it, and the text that it should write.

    python -m train.instructions work/prepared --target words --sets shared/data/eval --out work/instructions
    python -m train.instructions work/prepared --target overview --given title          # the paper's Figure 2: title -> overview
    python -m train.instructions work/prepared --target teacher --teacher work/descriptions.jsonl
    python -m train.instructions work/prepared --smoke --out work/instructions          # 60 pairs

`overview`: title, or all facts but the overview, -> overview. `teacher`: descriptions by a larger model, or the best of several by the base
itself (`python -m train.describe work/prepared --retries 4 --out work/descriptions.jsonl`), kept only where the metadata checks find
nothing. `words`: what other people said of the item, from the training side of evaluation sets: keywords and what people searched for
before they chose it (the sets `text_*`), its tagline, another platform's description, in this order in one text (document expansion).

Writes `train.jsonl`, `heldout.jsonl`, `dev.jsonl` and `manifest.json`. No item of the dev or test split is in `train.jsonl`. BLEU is
measured on `heldout.jsonl`: items of the test split; for `words` of the dev split, since its test labels are there to judge finished
models. What chooses between models (`train.preference`) reads `dev.jsonl`, which may be empty.
Tokens and their limit are `train.generation.completions`' business.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import orjson
import typer

from matinee.errors import SettingsError, SourceError
from matinee.evaluation.query_sets import QuerySet, read_set, set_names
from matinee.evaluation.splits import Entry, Split, read_corpus
from matinee.items import Item
from matinee.text import fact_checks, templates
from train.embedding.pairs import Trainable
from train.jobs import runs

Target = Literal["overview", "teacher", "words"]
Given = Literal["facts", "title"]

WHOLE = ("known_tagline", "known_desc")
"""The sets of `words` whose texts are sentences about one item; an item's text ends with them, in this order."""

HINTS = {
    "overview": "the catalogue has no overviews there",
    "teacher": "`train.describe` has to describe items of that split too (see its --only)",
    "words": "sets need texts for it, as `matinee evalset make --clicks` or `--field` makes them",
}

GUARD = "dev.jsonl"

SMOKE = 60


@dataclass(frozen=True, slots=True)
class Pair:
    """`ends`: whether the text is the whole answer, after which the model should stop."""

    id: str
    item: Item
    text: str
    ends: bool = True


def main(
    prepared: Annotated[Path, typer.Argument(help="the folder of train.prepare")],
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("work/instructions"),
    target: Annotated[str, typer.Option(help="overview, teacher or words")] = "overview",
    given: Annotated[str, typer.Option(help="of the target overview: facts (all but the overview) or title")] = "facts",
    sets: Annotated[Path | None, typer.Option(help="of the target words: a folder of evaluation sets")] = None,
    teacher: Annotated[Path | None, typer.Option(help="of the target teacher: JSONL with id and description")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="that many pairs at most, and a tenth of it held out")] = None,
    seed: Annotated[int, typer.Option(help="of the order, and so of what a limit takes")] = 0,
    smoke: Annotated[bool, typer.Option("--smoke", help=f"{SMOKE} pairs")] = False,
) -> None:
    """Write the pairs that train.enhancer learns from."""
    _check(target, given, sets, teacher)
    limit = min(limit or SMOKE, SMOKE) if smoke else limit
    manifest = runs.read_manifest(prepared, "prepare")
    options = {"target": target, "given": given, "limit": limit, "seed": seed, "text_version": templates.TEXT_VERSION}
    inputs = dict(manifest["outputs"]) | _hashes(sets, teacher)
    if runs.finished(out, "instructions", options, inputs):
        runs.console.print(f"{out} is complete already: nothing to do", highlight=False, soft_wrap=True)
        return
    entries = read_corpus(prepared)
    held: Split = "dev" if target == "words" else "test"
    counts: dict[str, Any] = {}
    out.mkdir(parents=True, exist_ok=True)
    (out / runs.MANIFEST).unlink(missing_ok=True)
    tenth = limit and max(1, limit // 10)
    for name, split, most in (("train", "train", limit), ("heldout", held, tenth), ("dev", "dev", tenth)):
        items = side(entries, cast("Split", split))
        pairs, told = make(items, cast("Target", target), cast("Given", given), sets, teacher, cast("Split", split))
        chosen = sorted(pairs, key=lambda pair: hashlib.sha256(f"{seed}\0{pair.id}".encode()).digest())[:most]
        if not chosen and name != "dev":
            raise SourceError(f"no item of the split {split} has a text for the target {target}: {HINTS[target]} (found: {told or 0})")
        write_pairs(chosen, out / f"{name}.jsonl")
        counts[name] = {"pairs": len(chosen), "split": split, **told}
    runs.write_manifest(out, "instructions", options, inputs, counts=counts)
    runs.console.print(f"{out}: {counts}", highlight=False, soft_wrap=True)


def _check(target: str, given: str, sets: Path | None, teacher: Path | None) -> None:
    if target not in get_args(Target) or given not in get_args(Given):
        raise SettingsError(f"--target {target} --given {given}: use overview, teacher or words, and facts or title")
    if (target == "words") != (sets is not None):
        raise SettingsError("--target words and --sets go together: the words are those of evaluation sets")
    if (target == "teacher") != (teacher is not None):
        raise SettingsError("--target teacher and --teacher go together: `python -m train.describe` writes such a file")


def _hashes(sets: Path | None, teacher: Path | None) -> dict[str, str]:
    if sets is not None:
        qrels = [sets / name / "qrels" / f"{split}.tsv" for split in ("train", "dev") for name in _kinds(sets, split)]
        return {
            f"sets/{name}": digest for name, digest in runs.hashes({*qrels, *(p.parents[1] / "queries.jsonl" for p in qrels)}, sets).items()
        }
    return runs.hashes([teacher], teacher.parent) if teacher is not None and teacher.is_file() else {}


def side(entries: Sequence[Entry], split: Split) -> dict[str, Item]:
    """The items of one split; which ones may be trained on is `train.embedding.pairs`' decision."""
    chosen = Trainable(entries).entries if split == "train" else [entry for entry in entries if entry.split == split]
    return {entry.id: entry.item for entry in chosen}


def make(
    items: Mapping[str, Item], target: Target, given: Given, sets: Path | None, teacher: Path | None, split: Split
) -> tuple[list[Pair], dict[str, Any]]:
    """The pairs of some items, and what there is to say about them."""
    if target == "overview":
        return list(_overviews(items, given)), {}
    if target == "teacher" and teacher is not None:
        return _taught(items, teacher)
    assert sets is not None  # noqa: S101
    return _words(items, sets, split)


def _overviews(items: Mapping[str, Item], given: Given) -> Iterator[Pair]:
    for id, item in items.items():
        known = Item(kind=item.kind, title=item.title) if given == "title" else item.model_copy(update={"overview": ""})
        if item.overview:
            yield Pair(id, known, item.overview)


def _taught(items: Mapping[str, Item], path: Path) -> tuple[list[Pair], dict[str, Any]]:
    """What a teacher wrote of these items, if the metadata bears it out."""
    pairs, refused = {}, Counter[str]()
    for row in _rows(path):
        item = items.get(row["id"])
        if item is None or row.get("source") == "template":
            continue
        text = templates.one_line(row["description"])
        problems = fact_checks.violations(text, item)
        refused.update({problem.partition(":")[0] for problem in problems})
        if not problems:
            pairs[row["id"]] = Pair(row["id"], item, text)
    return list(pairs.values()), {"refused": dict(refused)}


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise SourceError(f"{path}, line {number}: not valid JSON ({error})") from None
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("id", "description")):
            raise SourceError(f"{path}, line {number}: needs the texts id and description")
        yield row


def _kinds(folder: Path, split: Split) -> list[str]:
    """The sets of `words` that have this split, in the order in which an item's text tells them."""
    names = set_names(folder, split)
    short = sorted(name for name in names if name.startswith("text_") and read_set(folder, name, split).trainable)
    return [*short, *(name for name in WHOLE if name in names)]


def _words(items: Mapping[str, Item], folder: Path, split: Split) -> tuple[list[Pair], dict[str, Any]]:
    """All that other people said of an item, as one text.

    Few items have all kinds, and what nobody wrote must not be taught as an end: only a text with the last kind in it is whole.
    """
    known = {name: _said(items, read_set(folder, name, split)) for name in _kinds(folder, split)}
    texts = {
        id: {name: _sentence(name, said[id]) for name, said in known.items() if id in said}
        for id in sorted({id for said in known.values() for id in said})
    }
    last = next(reversed(known), None)
    pairs = [Pair(id, items[id], " ".join(parts.values()), ends=last in parts) for id, parts in texts.items()]
    return pairs, {"sources": {name: len(said) for name, said in known.items()}}


def _said(items: Mapping[str, Item], queries: QuerySet) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for query, relevant in queries.relevant.items():
        named = queries.items.get(query)
        # A query about a test film is its words, so it stays out even where a qrel is wrong.
        if named is not None and named not in items:
            continue
        for id in relevant & items.keys():
            found.setdefault(id, []).append(queries.texts[query])
    return found


def _sentence(name: str, texts: Sequence[str]) -> str:
    """A kind of words as sentences; keywords and searches on one line, each once, those of a pair by themselves."""
    if name in WHOLE:
        return templates.join_sentences(texts[0])
    words = dict.fromkeys(word.strip() for text in sorted(texts) for word in text.split(",") if word.strip())
    line = ", ".join(words)
    return templates.join_sentences(line[:1].upper() + line[1:])


def write_pairs(pairs: Sequence[Pair], path: Path) -> None:
    with path.open("wb") as out:
        for pair in pairs:
            row = {"id": pair.id, "item": pair.item.facts(), "text": templates.one_line(pair.text), "ends": pair.ends}
            out.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def read_pairs(path: Path) -> list[Pair]:
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    return [Pair(row["id"], Item.model_validate(row["item"]), row["text"], row["ends"]) for row in rows]


app = runs.job_app(main)

if __name__ == "__main__":
    app()
