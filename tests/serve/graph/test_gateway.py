"""The gateway's logic over recorded parts: what it asks of whom, what it keeps, and when it asks twice."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import serve.graph.context
from matinee.errors import DeadlineError, FingerprintError, IndexAbsentError
from matinee.index.types import Manifest
from matinee.items import Item
from matinee.models.types import Description
from matinee.recommend.queries import ExampleQuery, RankedItems, TextQuery
from serve.errors import RequestError
from serve.graph import messages, requests
from serve.graph.clients import model_client
from serve.graph.context import RequestContext
from serve.graph.gateway import Gateway
from serve.graph.parts import Graph
from serve.graph.wire import QueuedMessage
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink
from tests.waiting import HANG_S

COLD = Item(kind="film", title="A Cold Film", year=2030)
ANSWER = RankedItems(b"[]", 0, "cosine")


def manifest(recipe: str) -> Manifest:
    return Manifest.model_validate({"version": "v", "catalogue": "c", "fingerprint": "model-0", "recipe": recipe, "dimensions": {}})


class Parts:
    """Recorded parts: vectors are (length of the text, number of the model), descriptions say the title."""

    def __init__(self, recipe: str = "raw") -> None:
        self.recipe = recipe
        self.model = 0
        self.embedded: list[messages.Embed] = []
        self.described: list[str] = []
        self.described_in_bulk: list[bool] = []
        self.ranked: list[messages.Rank] = []
        self.refusals: list[Exception] = []

    async def embedder(self, unit: messages.Embed, deadline: float) -> messages.Embedded:
        self.embedded.append(unit)
        vectors = np.array([[len(text), self.model] for text in unit.texts], dtype=np.float32)
        return messages.Embedded(f"model-{self.model}", vectors)

    async def retriever(self, unit: Any, deadline: float) -> Any:
        if isinstance(unit, messages.ReadStatus):
            return messages.IndexStatus(None if self.recipe == "none" else manifest(self.recipe))
        self.ranked.append(unit)
        if self.refusals:
            raise self.refusals.pop()
        return ANSWER

    async def enhancer(self, unit: messages.Describe, deadline: float) -> Description:
        self.described.append(unit.item.title)
        self.described_in_bulk.append(unit.bulk)
        self.deadline = deadline
        text = f"About {unit.item.title}."
        return Description(
            text=text, source="model", violations=(), adherence=1.0, attempts=1, tokens=1, model="m", marked=False, elapsed_s=0.0
        )


@pytest.fixture
def make(local_graph: Any, tmp_path: Path) -> Callable[..., tuple[Gateway, Parts]]:
    def build(recipe: str = "raw", **settings: Any) -> tuple[Gateway, Parts]:
        parts = Parts(recipe)
        graph = Graph(parts.embedder, parts.retriever, parts.enhancer, {})
        return Gateway(local_graph.local_settings(tmp_path, **settings), graph, Metrics(MemorySink())), parts

    return build


def context() -> RequestContext:
    return RequestContext(time.monotonic() + 3600)


def recommend(**fields: Any) -> requests.RecommendRequest:
    return requests.RecommendRequest.model_validate(fields)


def search(**fields: Any) -> requests.SearchRequest:
    return requests.SearchRequest.model_validate(fields)


async def test_an_item_of_the_index_costs_one_hop(make: Any) -> None:
    service, parts = make()
    seen = context()
    await service.recommend(recommend(likes=["Inception"]), seen)
    assert (len(parts.ranked), parts.embedded, parts.described) == (1, [], [])
    assert parts.ranked[0].fingerprint is None
    assert list(seen.stages) == ["retrieve"]


async def test_examples_become_ids_titles_and_vectors(make: Any) -> None:
    service, parts = make()
    uid = "12345678-1234-5678-1234-567812345678"
    likes = [uid.upper(), "Inception", {"id": "own"}, {"title": "Heat"}, {"item": COLD.facts()}]
    await service.recommend(
        recommend(likes=likes, dislikes=[{"item": COLD.facts() | {"title": "Other!"}}], text="a  text", exclude=["own"]), context()
    )
    call = parts.ranked[0].query
    assert isinstance(call, ExampleQuery)
    assert [like.id for like in call.likes] == [uid.upper(), "Inception", "own", None, COLD.uid(service.settings.catalogue)]
    assert [like.title for like in call.likes] == [None, "Inception", None, "Heat", None]
    assert call.exclude == {"own"}
    by_kind = {unit.kind: unit.texts for unit in parts.embedded}
    assert by_kind["query"] == ("a text",)
    assert call.text is not None
    assert call.text[0] == len("a text")
    assert call.likes[4].vector is not None
    assert call.dislikes[0].vector is not None
    assert [call.likes[4].vector[0], call.dislikes[0].vector[0]] == [len(text) for text in by_kind["document"]]


@pytest.mark.parametrize(
    ("recipe", "enhance", "described"),
    [
        ("raw", None, False),
        ("raw", False, False),
        ("raw", True, True),
        ("both", None, True),
        ("both", False, False),
        ("enhanced", None, True),
    ],
)
async def test_cold_items_are_made_as_the_index_was_or_as_the_caller_asks(
    make: Any, recipe: str, enhance: bool | None, described: bool
) -> None:
    service, parts = make(recipe)
    await service.recommend(recommend(likes=[{"item": COLD.facts()}], enhance=enhance), context())
    assert parts.described == (["A Cold Film"] if described else [])
    assert any("About A Cold Film." in text for text in parts.embedded[0].texts) is described


@pytest.mark.parametrize(("likes", "dislikes", "bulk"), [(3, 2, False), (50, 0, True), (3, 3, True)])
async def test_the_descriptions_of_many_cold_items_are_bulk_work(make: Any, likes: int, dislikes: int, bulk: bool) -> None:
    service, parts = make("raw")
    cold = [{"item": {"title": f"Film {n}"}} for n in range(likes + dislikes)]
    await service.recommend(recommend(likes=cold[:likes], dislikes=cold[likes:], enhance=True), context())
    assert parts.described_in_bulk == [bulk] * (likes + dislikes)
    await service.search(search(text="a text", expand=True), context())
    assert parts.described_in_bulk[-1] is False


async def test_cold_items_are_described_together(make: Any) -> None:
    service, parts = make("both")
    waiting, all_asked = [], asyncio.Event()

    async def together(unit: messages.Describe, deadline: float) -> Description:
        waiting.append(unit.item.title)
        if len(waiting) == 3:
            all_asked.set()
        await asyncio.wait_for(all_asked.wait(), HANG_S)
        if unit.item.title == "Film 0":
            raise DeadlineError("late")
        return await Parts.enhancer(parts, unit, deadline)

    service.graph = replace(service.graph, enhancer=together)
    now = context()
    await service.recommend(recommend(likes=[{"item": {"title": f"Film {n}"}} for n in range(3)]), now)
    assert sorted(parts.described) == ["Film 1", "Film 2"]
    assert now.degraded == ["enhancer"]
    assert service.metrics.sink.values["matinee_degraded", (("part", "enhancer"), ("reason", "deadline"))] == 1
    assert now.stages.keys() == {"enhance", "embed", "retrieve"}


def with_queue(service: Gateway, parts: Parts, *, hangs: bool = False) -> None:
    """The enhancer of `service` behind the queue that a gateway has before it."""

    async def send(batch: Sequence[QueuedMessage[messages.Describe]], on_result: Any) -> list[Description]:
        await (asyncio.Event().wait() if hangs else asyncio.sleep(0))
        return [await parts.enhancer(queued.message, queued.deadline) for queued in batch]

    enhancer = model_client("enhancer", send, service.settings, service.metrics)
    service.graph = replace(service.graph, enhancer=enhancer)


def cold_items(name: str, count: int) -> requests.RecommendRequest:
    return recommend(likes=[{"item": {"title": f"{name} {n}"}} for n in range(count)])


@pytest.mark.parametrize("waiting", [1, 16])
async def test_the_descriptions_of_many_cold_items_wait_for_their_turn(make: Any, waiting: int) -> None:
    service, parts = make("both", enhancer={"bulk_waiting": waiting})
    with_queue(service, parts)
    now = context()
    await service.recommend(cold_items("Film", 50), now)
    assert (len(parts.described), now.degraded) == (50, [])
    batch = [replace(context(), bulk=True) for _ in range(16)]
    await asyncio.gather(*(service.recommend(cold_items(f"Part {n}", 5), one) for n, one in enumerate(batch)))
    assert (len(parts.described), [one.degraded for one in batch]) == (130, [[]] * 16)


async def test_no_request_waits_longer_for_a_turn_than_for_a_description(make: Any) -> None:
    service, parts = make("both", enhancer={"deadline_s": 0.2})
    with_queue(service, parts, hangs=True)
    contexts = [context() for _ in range(2)]
    await asyncio.gather(*(service.recommend(cold_items(f"Film {n}", 20), one) for n, one in enumerate(contexts)))
    assert [one.degraded for one in contexts] == [["enhancer"]] * 2
    assert service.metrics.sink.values["matinee_degraded", (("part", "enhancer"), ("reason", "deadline"))] == 2


def test_a_stage_that_several_do_at_the_same_time_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, ticks = context(), itertools.count()
    monkeypatch.setattr(serve.graph.context, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    with now.stage("enhance"), now.stage("enhance"):
        pass
    assert now.stages == {"enhance": 2000}
    with now.stage("enhance"):
        pass
    assert now.stages == {"enhance": 3000}


async def test_a_cold_item_needs_an_index(make: Any) -> None:
    service, _ = make("none")
    with pytest.raises(IndexAbsentError):
        await service.recommend(recommend(likes=[{"item": COLD.facts()}]), context())


async def test_vectors_are_kept_by_kind_and_text(make: Any) -> None:
    service, parts = make()
    for _ in range(3):
        await service.search(search(text="robots"), context())
    assert parts.embedded == [messages.Embed(("robots",), "query")]
    counts = service.metrics.sink.values
    assert counts["matinee_cache", (("cache", "vectors"), ("result", "hit"))] == 2
    assert counts["matinee_cache", (("cache", "vectors"), ("result", "miss"))] == 1


async def test_a_cache_of_nothing_keeps_nothing(make: Any) -> None:
    service, parts = make(embedder={"cache_entries": 0, "precision": "fp32"}, enhancer={"cache_entries": 0})
    for _ in range(2):
        await service.search(search(text="robots", expand=True), context())
    assert (len(parts.embedded), len(parts.described)) == (2, 2)


async def test_long_texts_cannot_fill_the_memory(make: Any) -> None:
    """The attack: as many entries as the cache may have, each a text of the largest size."""
    limits = {"cache_bytes": 100_000}
    service, _ = make(embedder={"precision": "fp32", **limits}, enhancer=limits)
    for n in range(60):
        await service.search(search(text=f"{n} {'long ' * 700}"), context())
        await service.describe(COLD.model_copy(update={"overview": f"{n} {'long ' * 700}"}), context())
    assert 0 < service._caches.vectors.bytes <= 100_000
    assert 0 < service._caches.descriptions.bytes <= 100_000
    assert len(service._caches.vectors) < 30


async def test_descriptions_are_kept_by_their_facts(make: Any) -> None:
    service, parts = make()
    for item in (COLD, COLD.model_copy(), COLD.model_copy(update={"year": 2031})):
        await service.describe(item, context())
    assert len(parts.described) == 2


async def test_a_description_is_for_exactly_the_item_that_was_sent(make: Any) -> None:
    """The fact check reads numbers and whole lists, which the prompt leaves out or joins: another user's words passed it by their own."""
    service, parts = make()
    likes = [
        COLD,
        COLD.model_copy(update={"numbers": {"votes": 7.0}}),
        COLD.model_copy(update={"genres": ("Drama, War",)}),
        COLD.model_copy(update={"genres": ("Drama", "War")}),
        COLD.model_copy(update={"overview": "one  line"}),
        COLD.model_copy(update={"overview": "one line"}),
    ]
    for item in likes:
        await service.describe(item, context())
    assert len(parts.described) == len(likes)


async def test_after_a_new_encoder_the_cache_is_made_again_once(make: Any) -> None:
    service, parts = make()
    await service.search(search(text="robots"), context())
    parts.model, parts.refusals = 1, [FingerprintError("another encoder")]
    await service.search(search(text="robots"), context())
    assert [rank.fingerprint for rank in parts.ranked] == ["model-0", "model-0", "model-1"]
    parts.refusals = [FingerprintError("another encoder")] * 2
    with pytest.raises(FingerprintError):
        await service.search(search(text="robots"), context())


async def test_vectors_of_two_encoders_never_meet_in_one_call(make: Any) -> None:
    service, parts = make()
    await service.recommend(recommend(text="one"), context())
    parts.model = 1
    await service.recommend(recommend(text="one", likes=[{"item": COLD.facts()}]), context())
    call = parts.ranked[-1]
    assert call.fingerprint == "model-1"
    assert (call.query.text[1], call.query.likes[0].vector[1]) == (1, 1)


async def test_sparse_search_embeds_nothing(make: Any) -> None:
    service, parts = make()
    await service.search(search(text="robots", mode="sparse"), context())
    assert parts.embedded == []
    call = parts.ranked[0].query
    assert isinstance(call, TextQuery)
    assert (call.vector, call.text) == (None, "robots")


async def test_expansion_widens_the_vector_and_not_the_words(make: Any) -> None:
    service, parts = make()
    await service.search(search(text="robots", expand=True), context())
    assert parts.embedded[0].texts == ("robots About robots.",)
    assert parts.ranked[0].query.text == "robots"


async def test_the_longest_text_that_settings_allow_can_be_expanded(make: Any) -> None:
    service, _ = make(serving={"max_text_chars": 100_000})
    await service.search(search(text="a " * 49_999 + "b", expand=True), context())


async def test_the_enhancer_gets_its_own_deadline_within_the_requests(make: Any) -> None:
    service, parts = make(enhancer={"deadline_s": 2})
    seen = context()
    await service.describe(COLD, seen)
    assert parts.deadline <= time.monotonic() + 2 < seen.deadline
    late = RequestContext(time.monotonic() + 1)
    await service.describe(COLD.model_copy(update={"year": 1}), late)
    assert parts.deadline == late.deadline


async def test_without_k_a_low_limit_is_no_error(make: Any) -> None:
    service, parts = make(search={"max_k": 5})
    await service.search(search(text="x"), context())
    await service.recommend(recommend(likes=["x"]), context())
    assert [rank.query.k for rank in parts.ranked] == [5, 5]


async def test_limits_name_their_setting(make: Any) -> None:
    service, _ = make(search={"max_k": 5}, serving={"max_text_chars": 16})
    for request in (search(text="x", k=6), search(text="x" * 17)):
        with pytest.raises(RequestError, match=r"search\.max_k|serving\.max_text_chars"):
            await service.search(request, context())
    for asked in (recommend(k=6), recommend(text="x" * 17), recommend(likes=["x" * 17]), recommend(dislikes=[{"title": "x" * 17}])):
        with pytest.raises(RequestError, match=r"search\.max_k|serving\.max_text_chars"):
            await service.recommend(asked, context())
    with pytest.raises(RequestError, match=r"search\.max_k"):
        await service.similar(requests.SimilarRequest(id="x", k=6), context())
