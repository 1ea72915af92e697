"""Pairs for contrastive training: an anchor, its positive, and who both are.

Sources: `<set>` (the training side of an evaluation set: text -> item, item -> item), `description` (what `train.describe` wrote), and from
the catalogue's own columns `sentence` (a sentence of the overview -> the item without it), `title`, `genre` (its columns in words -> the
item), `keyword` (a value of `extra.keywords`, where there are any -> the item) and `related` (an item -> the item that shares most genres,
keywords and words with it: the paper's kind of pair). An item of the dev or test split has no role in any of them
(`train.jobs.training_items`), and a keyword that a dev or test query asks has none either. Does not choose negatives
(`train.embedding.negatives`).
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matinee import languages
from matinee.evaluation import scoring
from matinee.evaluation.query_sets import QuerySet, read_set, set_names
from matinee.evaluation.splits import Entry
from matinee.text import templates
from matinee.text.cleaning import whole_sentences
from train.jobs.training_items import TrainingItems

CATALOGUE = ("sentence", "title", "genre", "keyword", "related")
SHORTEST = 3
"""Words of a description that still tells one item from others."""
COMMONEST = 0.02
"""Part of all items that may carry a keyword: commoner ones say too little (as in `matinee evalset make --field`)."""


@dataclass(frozen=True, slots=True)
class TextPair:
    """`anchor_id` is None where the anchor is a text of its own; `group` names the query, whose other positives are no negatives."""

    source: str
    group: str
    anchor: str
    positive: str
    anchor_id: str | None
    positive_id: str


def from_sets(items: TrainingItems, folder: Path) -> dict[str, list[TextPair]]:
    """The training side of every set under `folder`, without the items that may not be trained on."""
    sets = [read_set(folder, name, "train") for name in set_names(folder, "train")]
    by_source = {queries.name: _from_set(items, queries) for queries in sets if queries.trainable}
    return {name: pairs for name, pairs in by_source.items() if pairs}


def _from_set(items: TrainingItems, queries: QuerySet) -> list[TextPair]:
    pairs = []
    for query, relevant in queries.relevant.items():
        query_item = queries.items.get(query) if queries.of_items else None
        # A text set may name the item of its text: a query about a test item is its words, so it stays out even if a qrel were wrong.
        about = queries.items.get(query)
        if about is not None and about not in items.rows:
            continue
        anchor = items.text(query_item) if query_item is not None else templates.query_text(queries.texts[query])
        pairs += [
            TextPair(queries.name, f"{queries.name}/{query}", anchor, items.text(id), query_item, id)
            for id in sorted(relevant)
            if id in items.rows and id != query_item
        ]
    return pairs


def from_descriptions(items: TrainingItems, texts: Mapping[str, str]) -> dict[str, list[TextPair]]:
    """What a model says of an item -> the item: queries that nobody has to write (Bonifacio et al. 2022, "InPars")."""
    queries = {id: templates.query_text(text) for id, text in texts.items() if id in items.rows and len(text.split()) >= SHORTEST}
    pairs = [TextPair("description", f"description/{text.casefold()}", text, items.text(id), None, id) for id, text in queries.items()]
    return {"description": pairs} if pairs else {}


def from_catalogue(
    items: TrainingItems, seed: int, sources: Sequence[str] = CATALOGUE, language: str = languages.ENGLISH
) -> dict[str, list[TextPair]]:
    """Pairs that need nothing but the catalogue's own columns. `language`: of the made-up queries, as the setting `language`."""
    makers: Mapping[str, Callable[[TrainingItems, random.Random, str], Iterator[TextPair]]]
    makers = {"sentence": _sentences, "title": _titles, "genre": _genres, "keyword": _keyword_pairs, "related": _related_items}
    by_source = {name: list(makers[name](items, random.Random(f"{seed}/{name}"), language)) for name in sources}  # noqa: S311
    return {name: pairs for name, pairs in by_source.items() if pairs}


def _sentences(items: TrainingItems, random: random.Random, language: str) -> Iterator[TextPair]:
    """One sentence of an overview, its title masked, against the text without that sentence (the inverse cloze task)."""
    for entry in items.entries:
        sentences = [part for part in whole_sentences(entry.item.overview, language) if len(part.split()) >= 6]
        if len(sentences) < 2:
            continue
        chosen = random.choice(sentences)
        rest = entry.item.model_copy(update={"overview": entry.item.overview.replace(chosen, " ")})
        # Whole words: "It" stands in every second one.
        anchor = re.sub(rf"(?<!\w){re.escape(entry.item.title)}(?!\w)", entry.item.kind, chosen, flags=re.IGNORECASE)
        yield TextPair("sentence", f"sentence/{entry.id}", anchor, templates.raw_text(rest, items.template), entry.id, entry.id)


def _titles(items: TrainingItems, random: random.Random, language: str) -> Iterator[TextPair]:
    like = languages.language(language).queries.like
    for entry in items.entries:
        title = entry.item.title
        words = [
            title,
            title.casefold(),
            f"{title} {entry.item.year}" if entry.item.year else title,
            like.format(title=title),
        ]
        yield TextPair("title", f"title/{title.casefold()}", random.choice(words), items.text(entry.id), entry.id, entry.id)


def _genres(items: TrainingItems, random: random.Random, language: str) -> Iterator[TextPair]:
    """The columns in words, with a word or two of the overview that few others have: genres alone fit hundreds of items."""
    data = languages.language(language)
    spread = Counter(word for entry in items.entries for word in set(_words(entry.item.overview)))
    for entry in items.entries:
        item = entry.item
        rare = sorted(set(_words(item.overview)), key=lambda word: (spread[word], word))
        rare = [word for word in rare if spread[word] > 1][:4]
        if not item.genres or not rare:
            continue
        era = data.queries.era.format(decade=item.year // 10 * 10) if item.year else ""
        genres = " ".join(genre.casefold() for genre in random.sample(item.genres, min(len(item.genres), random.choice((1, 2)))))
        about = f" {data.conjunction} ".join(random.sample(rare, min(len(rare), random.choice((1, 2)))))
        form = random.choice(data.queries.about)
        text = templates.one_line(form.format(era=era, genres=genres, kind=item.kind, about=about))
        yield TextPair("genre", f"genre/{text}", text, items.text(entry.id), entry.id, entry.id)


def _keyword_pairs(items: TrainingItems, *_: object) -> Iterator[TextPair]:
    carried = [sorted(_keywords(entry)) for entry in items.entries]
    spread = Counter(word for words in carried for word in words)
    most = max(3, COMMONEST * len(items.entries))
    for entry, words in zip(items.entries, carried, strict=True):
        for word in words:
            if spread[word] <= most:
                yield TextPair("keyword", f"keyword/{word}", templates.query_text(word), items.text(entry.id), None, entry.id)


def without_test_keywords(by_source: Mapping[str, list[TextPair]], folder: Path) -> dict[str, list[TextPair]]:
    """Without the keywords that are, word for word, a dev or test query of a set under `folder`: a set can be made of that column, and its
    query has training items among its answers too."""
    if "keyword" not in by_source:
        return dict(by_source)
    sets = [read_set(folder, name, split) for split in ("dev", "test") for name in set_names(folder, split)]
    test_queries = {_plain(text) for queries in sets for text in queries.texts.values()}
    kept = [pair for pair in by_source["keyword"] if _plain(pair.anchor) not in test_queries]
    return {name: pairs for name, pairs in (dict(by_source) | {"keyword": kept}).items() if pairs}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _related_items(items: TrainingItems, random: random.Random, _: str) -> Iterator[TextPair]:
    """The paper's kind of pair: similarity by the catalogue's columns, so a model that learns it learns the columns."""
    tfidf = scoring.TfidfScorer(items.texts, items.language)
    facets = [_facets(entry) for entry in items.entries]
    for start in range(0, len(items.entries), 500):
        scores = tfidf(items.texts[start : start + 500])
        for offset, best in enumerate(scoring.top(scores, 30)):
            row = start + offset
            similarity = {int(column): _jaccard(facets[row], facets[column]) + scores[offset, column] for column in best if column != row}
            if not similarity:
                continue
            near = sorted(similarity, key=lambda column: (-similarity[column], column))[:3]
            this, other = items.entries[row], items.entries[random.choice(near)]
            yield TextPair("related", f"related/{this.id}", items.texts[row], items.text(other.id), this.id, other.id)


def _facets(entry: Entry) -> frozenset[str]:
    return frozenset(genre.strip().casefold() for genre in entry.item.genres) | _keywords(entry)


def _keywords(entry: Entry) -> frozenset[str]:
    value = entry.item.extra.get("keywords", ())
    words = value.split(",") if isinstance(value, str) else value
    return frozenset(plain for word in words if (plain := _plain(word)))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / max(1, len(a | b))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{4,}", text.casefold())


def choose(by_source: Mapping[str, Sequence[TextPair]], count: int, weights: Mapping[str, float], seed: int) -> dict[str, list[TextPair]]:
    """`count` pairs: each source gets its weight's share, and what a small one can't fill goes to the others. Groups take turns, so that
    a keyword on 300 items does not outvote one on 3."""
    left = {name: min(len(pairs), 10**9) for name, pairs in by_source.items() if weights.get(name, 1.0) > 0}
    shares = dict.fromkeys(left, 0)
    while count > 0 and any(left.values()):
        total = sum(weights.get(name, 1.0) for name in left if left[name])
        round_shares = {name: min(left[name], max(1, int(count * weights.get(name, 1.0) / total))) for name in left if left[name]}
        for name, more in round_shares.items():
            more = min(more, count)
            shares[name] += more
            left[name] -= more
            count -= more
    return {name: _take(by_source[name], share, seed) for name, share in shares.items() if share}


def _take(pairs: Sequence[TextPair], count: int, seed: int) -> list[TextPair]:
    order = np.random.default_rng(seed).permutation(len(pairs))
    turns: dict[str, int] = defaultdict(int)
    ranked = []
    for place, row in enumerate(order):
        group = pairs[row].group
        ranked.append((turns[group], place, int(row)))
        turns[group] += 1
    return [pairs[row] for _, _, row in sorted(ranked)[:count]]
