"""One round of the probe: labelled quality, what the approximate index loses, and the state of the index, as a client of the API sees them.

Only answered requests count: a failed request is not a miss, and the client counts it. If more than a tenth of a set's requests failed, the
set has no figure in this round. Items that the index does not have are left out and counted. They mean that the set and the catalogue have
drifted apart, which a mean would hide among bad rankings. Does not export and does not schedule.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from matinee.client import calls
from matinee.client.http import ServerError
from matinee.evaluation import metrics
from matinee.evaluation.query_sets import QuerySet
from matinee.recommend.results import RankedAnswer
from matinee.settings.serving import ProbeSettings
from serve.probe import queries
from serve.probe.client import ProbeClient

log = logging.getLogger(__name__)

K = 10
MODES = ("hybrid", "dense", "sparse")
SIMILAR = "similar"
"""The mode of a set whose queries are items."""
MOST_FAILED = 0.1
FILTERED_SHARE = 0.1
"""The filter of the filtered comparison passes about this part of the items: few enough to be hard for a graph."""

T = TypeVar("T")
Runs = dict[str, list[str]]


@dataclass(frozen=True)
class Quality:
    """A set's figures under one mode, over the queries that were answered and have a label in the index."""

    set: str
    mode: str
    queries: int
    recall: float
    ndcg: float


@dataclass(frozen=True)
class RoundReport:
    """What a round found. `trouble` says why something that should be there is not; empty after a whole round.

    `up`: the server gave its state. `not_compared`: why approximate search could not be held against exact search, where nothing is wrong
    but the key.
    """

    up: bool = False
    catalogue: str = ""
    default_mode: str = ""
    version: str = ""
    created: datetime | None = None
    qualities: tuple[Quality, ...] = ()
    queries: Mapping[str, int] = field(default_factory=dict)
    labelled: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)
    ann_recall: Mapping[bool, float] = field(default_factory=dict)
    not_compared: str = ""
    trouble: tuple[str, ...] = ()


class Prober:
    """Makes rounds. Remembers which labelled items the index has, for as long as its version and its size stay the same."""

    def __init__(self, settings: ProbeSettings) -> None:
        self._settings = settings
        self._configured = queries.read(settings)
        self._up = False
        self._index: tuple[str, int] | None = None
        self._present: dict[str, bool] = {}
        self._index_ids: dict[str, str | None] = {}

    async def round(self, client: ProbeClient) -> RoundReport:
        """Never raises for what a server does: that is in the report."""
        self._up = False
        try:
            async with asyncio.timeout(self._settings.interval_s):
                return await self._round(client)
        except TimeoutError:
            return RoundReport(up=self._up, trouble=(f"the round took longer than {self._settings.interval_s:g} s (probe.interval_s)",))
        except ServerError as error:
            return RoundReport(up=self._up, trouble=(str(error),))

    async def _round(self, client: ProbeClient) -> RoundReport:
        info = await client.send("info", calls.info())
        if not {"catalogue", "index", "search"} <= info.keys():
            raise client.count_error("malformed", f"{client.url}/v1/info is not that of a Matinee server: check probe.url")
        self._up = True
        index = info["index"]
        if index is None:
            if trouble := info.get("index_trouble"):
                raise client.count_error("index_unavailable", f"{client.url} has no index to answer from: {trouble}")
            raise client.count_error("index_absent", f"{client.url} has no index yet: build one with `matinee ingest FILE`")
        if self._index != (index["version"], index["items"]):
            self._index, self._present, self._index_ids = (index["version"], index["items"]), {}, {}
        troubles: list[str] = []
        sets = await self._sets(client, info["catalogue"])
        measured = [await self._measure(client, queries, troubles) for queries in sets]
        ann, not_compared = (
            await self._compare(client, sets, troubles) if index.get("approximate") and self._settings.ann_queries else ({}, "")
        )
        return RoundReport(
            up=True,
            catalogue=info["catalogue"],
            default_mode=info["search"]["mode"],
            version=index["version"],
            created=datetime.fromisoformat(index["created"]).astimezone(UTC) if index["created"] else None,
            qualities=tuple(quality for qualities, _ in measured for quality in qualities),
            queries={queries.name: len(queries.relevant) for queries in sets},
            labelled={queries.name: len(_items(queries)) for queries in sets},
            unknown={queries.name: unknown for queries, (_, unknown) in zip(sets, measured, strict=True)},
            ann_recall=ann,
            not_compared=not_compared,
            trouble=tuple(troubles),
        )

    async def _sets(self, client: ProbeClient, catalogue: str) -> list[QuerySet]:
        """The sets by index ids. What may be the catalogue's own id or the index' is asked once for each version of the index."""
        sets = queries.for_catalogue(self._configured, catalogue, self._settings.max_queries)
        unasked = sorted(queries.uncertain(sets, catalogue) - self._index_ids.keys())
        if unasked:
            self._index_ids |= await _each(client.index_id, unasked)
        known = {id: uid for id, uid in self._index_ids.items() if uid is not None}
        return [queries.by_index_id(one, catalogue, known) for one in sets]

    async def _measure(self, client: ProbeClient, queries: QuerySet, trouble: list[str]) -> tuple[list[Quality], int]:
        """The set's figures, and how many of its labelled items the index does not have."""
        runs = {mode: await self._runs(client, queries, mode) for mode in ([SIMILAR] if queries.of_items else MODES)}
        unknown = await self._unknown(client, queries, runs.values())
        if unknown is None:
            trouble.append(f"set {queries.name}: which of its items the index has could not be asked")
            return [], 0
        relevant = {
            id: items - unknown for id, items in queries.relevant.items() if items - unknown and queries.items.get(id) not in unknown
        }
        if not relevant:
            trouble.append(f"set {queries.name}: none of its items is in the index; is it about another catalogue?")
            return [], len(unknown)
        qualities = []
        for mode, run in runs.items():
            answered = {id: items for id, items in relevant.items() if id in run}
            if len(answered) < (1 - MOST_FAILED) * len(relevant):
                trouble.append(f"set {queries.name}, {mode}: {len(answered)} of {len(relevant)} queries were answered")
                continue
            recall, ndcg = (metrics.per_query(run, answered, measure, K).values() for measure in ("recall", "ndcg"))
            qualities.append(Quality(queries.name, mode, len(answered), _mean(recall), _mean(ndcg)))
        return qualities, len(unknown)

    async def _runs(self, client: ProbeClient, queries: QuerySet, mode: str) -> Runs:
        """The best `K` of each query that got an answer."""

        async def ask(id: str) -> list[str]:
            if mode == SIMILAR:
                # An item that is gone is found to be unknown, like any other of the set.
                return _ids(await client.send(SIMILAR, calls.similar(queries.items[id], K), missing_is_fine=True))
            return _ids(await client.send("search", calls.search({"text": queries.texts[id], "mode": mode, "k": K})))

        return await _each(ask, queries.relevant)

    async def _unknown(self, client: ProbeClient, queries: QuerySet, runs: Collection[Runs]) -> set[str] | None:
        """Items of the set that the index does not have; None where that is not known."""
        labelled = _items(queries)
        returned = {id for run in runs for query, answer in run.items() for id in (*answer, queries.items.get(query))}
        self._present |= dict.fromkeys(labelled & returned, True)
        missing = [id for id in sorted(labelled) if id not in self._present]
        self._present |= await _each(client.exists, missing)
        if any(id not in self._present for id in missing):
            return None
        unknown = {id for id in labelled if not self._present[id]}
        if unknown and missing:
            log.warning(
                "set %s: %s of its %s items are not in the index (the first: %s): they are left out of its figures",
                queries.name,
                len(unknown),
                len(labelled),
                min(unknown),
            )
        return unknown

    async def _compare(self, client: ProbeClient, sets: Sequence[QuerySet], trouble: list[str]) -> tuple[dict[bool, float], str]:
        """`_ann_recall`, or why there is none. Without keys, a server refuses exact searches from other machines: no failure."""
        try:
            return await self._ann_recall(client, sets, trouble), ""
        except ServerError as error:
            if error.code == "forbidden":
                return {}, f"approximate search is not held against exact search, which takes a key with the scope admin: {error}"
            raise

    async def _ann_recall(self, client: ProbeClient, sets: Sequence[QuerySet], trouble: list[str]) -> dict[bool, float]:
        """How much of the exact best `K` the approximate search finds, without and with a filter (False, True)."""
        texts = await self._texts(client, sets)
        recall: dict[bool, float] = {}
        for filtered, filter in ((False, {}), (True, await _filter(client))):
            if filter is None or not texts:
                continue

            async def overlap(text: str, filter: Mapping[str, object] = filter) -> float | None:
                body: dict[str, object] = {"text": text, "mode": "dense", "k": K, "filter": filter}
                exact = _ids(await client.send("exact", calls.search(body | {"exact": True})))
                return metrics.recall_at(_ids(await client.send("search", calls.search(body))), exact, K) if exact else None

            try:
                # One alone first: without the scope, all the others would fail alike.
                answers = {texts[0]: await overlap(texts[0])} | await _each(overlap, texts[1:])
            except ServerError as error:
                if error.code == "forbidden":
                    raise
                trouble.append(f"approximate against exact search: {error}")
                return recall
            parts = [part for part in answers.values() if part is not None]
            if len(answers) < (1 - MOST_FAILED) * len(texts):
                trouble.append(f"approximate against exact search: {len(answers)} of {len(texts)} queries were answered")
            elif parts:
                recall[filtered] = _mean(parts)
        return recall

    async def _texts(self, client: ProbeClient, sets: Sequence[QuerySet]) -> list[str]:
        """Queries of the sets, or titles if there are none. They need no labels, because the probe compares two searches."""
        texts = [text for queries in sets if not queries.of_items for text in queries.texts.values()]
        if not texts:
            page = await client.send("items", calls.items(self._settings.ann_queries))
            texts = [entry["item"]["title"] for entry in page["items"]]
        return list(dict.fromkeys(texts))[: self._settings.ann_queries]


async def _filter(client: ProbeClient) -> Mapping[str, object] | None:
    """A condition that about a tenth of the items meet; None where the catalogue has nothing to filter by."""
    facets = await client.send("facets", calls.facets())
    target = FILTERED_SHARE * facets["count"]
    options = [
        (abs(entry["count"] - target), key, entry["value"])
        for key, entries in (("genres", facets["genres"]), ("language", facets["language"]), ("kind", facets["kind"]))
        for entry in entries
        if K <= entry["count"] < facets["count"]
    ]
    return {key: [value] for _, key, value in sorted(options, key=lambda option: (*option[:2], str(option[2])))[:1]} or None


async def _each(ask: Callable[[str], Awaitable[T]], keys: Collection[str]) -> dict[str, T]:
    """The answers by key, without those whose request failed."""

    async def one(key: str) -> tuple[str, T] | None:
        try:
            return key, await ask(key)
        except ServerError:
            return None

    return dict(answer for answer in await asyncio.gather(*map(one, keys)) if answer is not None)


def _items(queries: QuerySet) -> set[str]:
    """Labelled ones, and those that are asked with."""
    return set().union(*queries.relevant.values(), queries.items.values() if queries.of_items else ())


def _ids(answer: RankedAnswer) -> list[str]:
    return [card["id"] for card in answer["items"]]


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values)
