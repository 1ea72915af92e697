"""Does a description help? Raw against enhanced text, in every way that an index can use a description; part of `train.evaluate`.

`described`, the fair reading, ranks the described items only, whatever the arm; `all items` ranks the whole corpus, where an item without a
description keeps its raw text, and favours whatever was described. Knows what an arm is; does not write descriptions (`train.describe`).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from matinee.errors import SourceError
from matinee.evaluation import scoring
from matinee.evaluation.query_sets import QuerySet
from matinee.evaluation.scoring import Scores
from matinee.files import sha256
from matinee.items import Item
from matinee.models.descriptions import read_descriptions
from matinee.settings.index import Recipe
from matinee.settings.tree import SearchSettings
from matinee.text import templates
from matinee.text.recipe import WEIGHT
from matinee.vectors import Matrix
from train.reporting import measure, tables
from train.reporting.measure import Corpus, ModelVectors, PerQuery, System
from train.reporting.rows import ArmMeanRow, ArmResult, ArmRow

Facts = Literal["all metadata", "overview hidden"]

BOTH = f"both, description at {WEIGHT:g}"
"""The recipe of that name."""


@dataclass(frozen=True)
class DescriptionSet:
    """One model's descriptions, by item; and what the model was given."""

    name: str
    facts: Facts
    texts: Mapping[str, str]
    digest: str = field(default="", compare=False)

    @classmethod
    def read(cls, argument: str) -> "DescriptionSet":
        """`NAME=FILE` or `FILE`, as `train.describe` writes it, or any JSONL of id and description."""
        name, sign, file = argument.rpartition("=")
        path = Path(file)
        texts, note = read_descriptions(path), path.with_suffix(".manifest.json")
        try:
            model = json.loads(note.read_text(encoding="utf-8"))["model"] if note.is_file() else {}
        except (ValueError, KeyError):
            raise SourceError(
                f"{note} does not name the model that wrote {path.name}: delete it, or run `python -m train.describe` again"
            ) from None
        return cls(name if sign else path.stem, "overview hidden" if model.get("hide_overview") else "all metadata", texts, sha256(path))


class CorpusTexts:
    """Every text and vector of one corpus under one encoder, with the overviews or without; what arms are made of."""

    def __init__(self, corpus: Corpus, encoder: ModelVectors, facts: Facts, template: templates.Template) -> None:
        self.corpus, self.encoder, self.template = corpus, encoder, template
        hidden = facts == "overview hidden"
        self.items: list[Item] = [e.item.model_copy(update={"overview": ""}) if hidden else e.item for e in corpus.entries]
        self.words = [templates.raw_text(item, templates.SPARSE_TEMPLATE) for item in self.items]
        self.raw = encoder([templates.raw_text(item, template) for item in self.items])

    def texts(self, written: DescriptionSet, recipe: Recipe, template: templates.Template) -> list[str]:
        """Raw where there is no description."""
        descriptions = [written.texts.get(id) for id in self.corpus.ids]
        return [templates.embedded_text(item, text, recipe, template=template) for item, text in zip(self.items, descriptions, strict=True)]

    def vectors(self, written: DescriptionSet, recipe: Recipe) -> Matrix:
        """Of one text an item."""
        rows = [row for row, id in enumerate(self.corpus.ids) if id in written.texts]
        texts = self.texts(written, recipe, self.template)
        vectors = self.raw.copy()
        vectors[rows] = self.encoder([texts[row] for row in rows])
        return vectors

    def blend(self, enhanced: Matrix) -> Matrix:
        """What the recipe `both` indexes. Where there is no description, the raw vector and a part of itself."""
        blended = self.raw + WEIGHT * enhanced
        unit: Matrix = blended / np.linalg.norm(blended, axis=1, keepdims=True)
        return unit

    def dense(self, documents: Matrix, items: Matrix | None = None) -> System:
        return measure.cache_scores(lambda queries: measure.cosine(self.corpus, self.encoder, queries, documents, items))

    def bm25(self, documents: Sequence[str]) -> System:
        # A query item asks with its own words, not with a model's.
        return measure.lexical(self.corpus, scoring.Bm25Scorer, documents, self.words)


@dataclass(frozen=True)
class Arm:
    """One way to search; `against` is the raw arm of the same way."""

    way: Literal["dense", "BM25", "hybrid"]
    name: str
    model: str
    score: System


def table(
    corpus: Corpus,
    encoders: Mapping[str, ModelVectors],
    written: Sequence[DescriptionSet],
    sets: Sequence[QuerySet],
    template: templates.Template = templates.DENSE_TEMPLATE,
    search: SearchSettings | None = None,
) -> dict[str, Any]:
    """Every arm on every set, with its paired difference to the raw arm of the same way; and how many items were described."""
    if not written:
        return {"rows": [], "means": []}
    common = set(corpus.ids).intersection(*(one.texts for one in written))
    if not common:
        raise SourceError(f"no item of the corpus is described in all of {', '.join(one.name for one in written)}")
    # Of each model the same items: one that described more would be compared on others.
    written = [replace(one, texts={id: text for id, text in one.texts.items() if id in common}) for one in written]
    pools = {"described": np.array([row for row, id in enumerate(corpus.ids) if id in common])}
    if len(common) < len(corpus.ids):
        pools["all items"] = np.arange(len(corpus.ids))
    rows: list[ArmRow] = []
    for facts in dict.fromkeys(one.facts for one in written):
        for name, encoder in encoders.items():
            index = CorpusTexts(corpus, encoder, facts, template)
            chosen = [one for one in written if one.facts == facts]
            for pool, columns in pools.items():
                judged = _measure_arms(list(arms(index, chosen, search or SearchSettings(), columns)), corpus, sets, columns)
                rows += [{"facts": facts, "encoder": name, "items": pool, **row} for row in judged]
    return {"rows": rows, "means": mean_rows(rows), "described": len(common), "raw": len(corpus.ids) - len(common), "template": template}


def arms(index: CorpusTexts, written: Sequence[DescriptionSet], search: SearchSettings, columns: np.ndarray[Any, Any]) -> Iterator[Arm]:
    """The raw arm of each way, then what each model's descriptions make of it; `columns`: the items that are ranked."""
    plain = index.bm25(index.words)

    def hybrid(dense: System, sparse: System) -> System:
        def score(queries: QuerySet) -> Scores:
            # The candidates are the best of the ranked items: of all items' best, few may be among them.
            lists = [matrix[:, columns] for matrix in (dense(queries), sparse(queries))]
            scores = np.full((len(queries.relevant), len(index.corpus.ids)), -np.inf, np.float32)
            scores[:, columns] = scoring.fuse(lists, search.fusion, k=search.rrf_k, weights=search.weights, prefetch=search.prefetch)
            return scores

        return score

    raw = index.dense(index.raw)
    yield Arm("dense", "raw", "", raw)
    yield Arm("BM25", "raw", "", plain)
    yield Arm("hybrid", "raw", "", hybrid(raw, plain))
    for one in written:
        enhanced = index.vectors(one, "enhanced")
        alone, joined, blended = (index.dense(vectors) for vectors in (enhanced, index.vectors(one, "both"), index.blend(enhanced)))
        expanded = index.bm25(index.texts(one, "both", templates.SPARSE_TEMPLATE))
        yield Arm("dense", "enhanced", one.name, alone)
        yield Arm("dense", "both, one text", one.name, joined)
        yield Arm("dense", BOTH, one.name, blended)
        yield Arm("dense", "both, two vectors, max", one.name, _combine(raw, alone, np.maximum))
        yield Arm("dense", "both, two vectors, sum", one.name, _combine(raw, alone, np.add))
        yield Arm("dense", "raw query item, enhanced index", one.name, index.dense(enhanced, index.raw))
        yield Arm("BM25", "expanded", one.name, expanded)
        yield Arm("hybrid", "sparse side expanded", one.name, hybrid(raw, expanded))
        yield Arm("hybrid", "both, one text, on both sides", one.name, hybrid(joined, expanded))
        yield Arm("hybrid", f"{BOTH}, sparse side raw", one.name, hybrid(blended, plain))
        yield Arm("hybrid", f"{BOTH}, sparse side expanded", one.name, hybrid(blended, expanded))


def _combine(first: System, second: System, how: Callable[[Scores, Scores], Scores]) -> System:
    return lambda queries: how(first(queries), second(queries))


def _measure_arms(compared: Sequence[Arm], corpus: Corpus, sets: Sequence[QuerySet], columns: np.ndarray[Any, Any]) -> Iterator[ArmResult]:
    ranked = {corpus.ids[column] for column in columns}
    for queries in sets:
        answerable = queries.restricted_to(ranked)
        if not answerable.relevant:
            continue
        raw: dict[str, PerQuery] = {}
        for arm in compared:
            if arm.name.startswith("raw query item") and not answerable.of_items:
                continue
            # A copy: whoever judges strikes the query item out.
            measured = measure.score(corpus, answerable, arm.score(answerable).copy(), pool=columns)
            figures = tables.intervals(measured)
            row: ArmResult = {
                "set": answerable.name,
                "kind": answerable.info.kind,
                "queries": len(measured["ndcg"]),
                "way": arm.way,
                "arm": arm.name,
                "model": arm.model,
                "recall": figures["recall"],
                "ndcg": figures["ndcg"],
                "mrr": figures["mrr"],
            }
            if arm.name == "raw":
                raw[arm.way] = measured
            else:
                row["minus_raw"] = tables.differences(measured, raw[arm.way])
            yield row


def mean_rows(rows: Sequence[ArmRow]) -> list[ArmMeanRow]:
    """For each arm its mean NDCG@10 over the sets, text and item sets apart: what a default is chosen by."""
    groups: dict[tuple[str, str, str, str, str, str, str], list[ArmRow]] = {}
    for row in rows:
        side = f"{row['kind']} sets"
        if "circular" not in row["set"]:
            groups.setdefault((row["facts"], row["encoder"], row["items"], side, row["way"], row["arm"], row["model"]), []).append(row)
    return [
        {
            "facts": facts,
            "encoder": encoder,
            "items": items,
            "sets": side,
            "way": way,
            "arm": arm,
            "model": model,
            "ndcg": float(np.mean([row["ndcg"]["mean"] for row in members])),
        }
        for (facts, encoder, items, side, way, arm, model), members in groups.items()
    ]
