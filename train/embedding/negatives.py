"""Hard negatives: items that BM25 or the encoder ranks high for an anchor though they are not its answer, without the false ones.

A candidate is refused when it is a known positive of the same query, of the anchor's or the positive's franchise, not an item that may be
trained on, or when the encoder finds it nearly as near as the positive (`margin`, as in NV-Retriever: such a one is probably right). Does
not make pairs (`train.embedding.pairs`).
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from matinee.evaluation import scoring
from matinee.evaluation.scoring import Encode
from train.embedding.pairs import TextPair
from train.jobs.training_items import TrainingItems

Miner = Literal["none", "bm25", "encoder", "both"]

_DEPTH = 50
_HARDEST = 10
_CHUNK = 256


def mine(
    items: TrainingItems,
    pairs: Sequence[TextPair],
    encode: Encode | None,
    *,
    miner: Miner,
    known: Iterable[TextPair] = (),
    margin: float = 0.95,
    seed: int = 0,
) -> list[str | None]:
    """The id of a negative for each pair, None where nothing fit is left. `encode` is not needed for BM25 alone.

    `known`: pairs that are not trained on, whose positives are no negatives either.
    """
    if miner == "none":
        return [None] * len(pairs)
    positives: dict[str, set[str]] = defaultdict(set)
    for pair in (*known, *pairs):
        positives[pair.group].add(pair.positive_id)
    bm25 = scoring.Bm25Scorer(items.texts, items.language) if miner in ("bm25", "both") else None
    documents = encode(items.texts, "document") if encode is not None else None
    # All at once, and each once: an encoder on a cluster starts for each call.
    places = {anchor: place for place, anchor in enumerate(dict.fromkeys(pair.anchor for pair in pairs))}
    queries = encode(list(places), "query") if encode is not None else None
    chosen: list[str | None] = []
    for start in range(0, len(pairs), _CHUNK):
        chunk = pairs[start : start + _CHUNK]
        anchors = [pair.anchor for pair in chunk]
        near = None
        if queries is not None and documents is not None:
            near = scoring.cosine(queries[[places[anchor] for anchor in anchors]], documents)
        lists = [
            scoring.top(scores, _DEPTH)
            for scores in (bm25(anchors) if bm25 else None, near if miner != "bm25" else None)
            if scores is not None
        ]
        for row, pair in enumerate(chunk):
            candidates = _interleave([ranking[row] for ranking in lists])
            limit = None if near is None else margin * float(near[row, items.rows[pair.positive_id]])
            kept = [
                column
                for column in candidates
                if _is_allowed_negative(items, pair, column, positives[pair.group])
                and (near is None or limit is None or near[row, column] < limit)
            ][:_HARDEST]
            rng = random.Random(f"{seed}/{pair.group}/{pair.positive_id}")  # noqa: S311
            # A sample of one: `choice` would draw others than earlier runs with this seed did.
            chosen.append(items.entries[rng.sample(kept, 1)[0]].id if kept else None)
    return chosen


def _is_allowed_negative(items: TrainingItems, pair: TextPair, column: int, positives: set[str]) -> bool:
    entry = items.entries[column]
    own = {items.entries[items.rows[id]].franchise for id in (pair.anchor_id, pair.positive_id) if id is not None}
    return entry.id not in positives and entry.id != pair.anchor_id and entry.franchise not in own


def _interleave(rankings: Sequence[np.ndarray]) -> list[int]:
    """By turns from each ranking, each item once."""
    return list(dict.fromkeys(int(column) for columns in zip(*rankings, strict=True) for column in columns))
