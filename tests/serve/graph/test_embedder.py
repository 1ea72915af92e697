"""The Embedder's replica with a small encoder: bulk comes in pieces, and nobody who searches waits for more than one of them."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matinee.errors import OverloadedError
from matinee.models.embedder import Embedder
from matinee.settings.models import EmbedderSettings
from serve.graph import messages
from serve.graph.clients import model_client, send_to
from serve.graph.context import RequestContext
from serve.graph.embedder import CpuEmbedderReplica, EmbedderReplica
from serve.graph.gateway import Gateway
from serve.graph.parts import Graph
from serve.graph.wire import WireMessage
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink
from tests.waiting import HANG_S, until_async, until_late

TEXTS = [f"{n}: " + "the keeper he was told had drowned still lights the lamp every night " * (n % 4) for n in range(100)]


class Watched:
    """An encoder that notes the texts of each call, and waits in the first one until `gate` is open."""

    def __init__(self, encoder: Embedder) -> None:
        self._encoder = encoder
        self.calls: list[Sequence[str]] = []
        self.begun, self.gate = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, texts: Sequence[str], *, kind: Any) -> Any:
        self.calls.append(texts)
        self.begun.set()
        assert self.gate.wait(HANG_S)
        return self._encoder.encode(texts, kind=kind)


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder = tiny_encoder.save(tmp_path_factory.mktemp("encoder") / "model")
    return Embedder.load(EmbedderSettings(model=str(folder), precision="fp32", threads=1), folder.parent)


@pytest.fixture
def watched(encoder: Embedder) -> Iterator[Watched]:
    watched = Watched(encoder)
    yield watched
    watched.gate.set()


@pytest.fixture
def replica(local_graph: Any, watched: Watched, tmp_path: Path) -> EmbedderReplica:
    class Loaded(EmbedderReplica):
        def load_model(self, settings: Any) -> Any:
            return watched

    replica = Loaded(local_graph.local_settings(tmp_path), Metrics(MemorySink()))
    replica.open()
    return replica


@pytest.fixture
def gateway(local_graph: Any, replica: EmbedderReplica, tmp_path: Path) -> Gateway:
    settings, metrics = local_graph.local_settings(tmp_path), Metrics(MemorySink())

    async def retriever(message: Any, deadline: float) -> Any:
        raise AssertionError("nobody ranks here")

    return Gateway(settings, Graph(model_client("embedder", send_to(replica), settings, metrics), retriever, None, {}), metrics)


async def begun(watched: Watched) -> None:
    assert await asyncio.to_thread(watched.begun.wait, HANG_S)


async def test_a_search_waits_for_one_pass_of_six_bulk_calls(gateway: Gateway, watched: Watched, replica: EmbedderReplica) -> None:
    context = RequestContext(time.monotonic() + HANG_S)
    embeds = [asyncio.create_task(gateway.embed(TEXTS, "document", context)) for _ in range(6)]
    await begun(watched)
    query = asyncio.create_task(gateway.graph.embedder(messages.Embed(("a heist",)), context.deadline))
    cold = asyncio.create_task(gateway.graph.embedder(messages.Embed(("a cold item",), "document"), context.deadline))
    asked = {("a heist",), ("a cold item",)}
    lines = [queue.waiting.lines for queue in replica.batcher._queues]
    await until_async(lambda: asked <= {one.queued.message.texts for line in lines for waiting in line.values() for one in waiting})
    watched.gate.set()
    await asyncio.gather(query, cold)
    assert watched.calls[1] == ["a heist"]
    assert ["a cold item"] in watched.calls[2:4]
    bulk = await asyncio.gather(*embeds)
    alone = watched._encoder.encode(TEXTS, kind="document")
    assert all(np.allclose(made.vectors, alone, atol=1e-5) for made in bulk)
    limit = gateway.settings.embedder.encode_tokens
    assert all(len(texts) == 1 or sum(map(messages.about_tokens, texts)) <= limit for texts in watched.calls)


async def test_queries_that_wait_together_are_encoded_together(replica: EmbedderReplica, watched: Watched) -> None:
    """In pieces of `encode_tokens` each, they would take half as long again: texts of like length need less padding."""
    first = asyncio.create_task(replica.call([WireMessage(messages.Embed(("a heist",)), HANG_S)]))
    await begun(watched)
    texts = [f"{n}: a thief who steals secrets from dreams" for n in range(32)]
    others = asyncio.create_task(replica.call([WireMessage(messages.Embed((text,)), HANG_S) for text in texts]))
    await until_async(lambda: replica.batcher.waiting == len(texts))
    watched.gate.set()
    await asyncio.gather(first, others)
    assert watched.calls == [["a heist"], texts]


@pytest.mark.parametrize(("kind", "refused"), [("query", 12), ("document", 0)])
async def test_a_slow_machine_refuses_queries_that_wait_too_long_and_no_request_of_many_items(
    replica: EmbedderReplica, watched: Watched, kind: Any, refused: int
) -> None:
    first = asyncio.create_task(replica.call([WireMessage(messages.Embed(("a heist",)), HANG_S)]))
    await begun(watched)
    for queue in replica.batcher._queues:
        queue.pace.interval_s, queue.pace.messages = 10.0, 1.0
    others = asyncio.create_task(replica.call([WireMessage(messages.Embed((f"{n}",), kind), HANG_S) for n in range(20)]))
    await until_async(lambda: replica.batcher.waiting == 20 - refused)
    watched.gate.set()
    results = await others
    assert [isinstance(result, OverloadedError) for result in results] == [False] * (20 - refused) + [True] * refused
    await first


async def test_a_bulk_call_that_is_late_is_not_encoded_to_its_end(gateway: Gateway, watched: Watched) -> None:
    await until_late(lambda deadline: gateway.embed(TEXTS, "document", RequestContext(deadline)), watched.begun.is_set)
    watched.gate.set()
    await gateway.graph.embedder(messages.Embed(("a heist",)), gateway.new_context().deadline)
    assert watched.calls[1:] == [["a heist"]]


async def test_a_stream_brings_queries_before_bulk_of_the_same_batch(replica: EmbedderReplica, watched: Watched) -> None:
    watched.gate.set()
    batch = [WireMessage(messages.Embed(tuple(TEXTS[:9]), "document", bulk=True), 60.0), WireMessage(messages.Embed(("a heist",)), 60.0)]
    places = [place async for pairs in replica.stream(batch) for place, _ in pairs]
    assert places == [1, 0]


async def test_texts_of_two_encoders_are_never_mixed(gateway: Gateway, local_graph: Any) -> None:
    fingerprints = iter("ab")

    async def replaced(message: messages.Embed, deadline: float) -> messages.Embedded:
        return messages.Embedded(next(fingerprints), np.zeros((len(message.texts), 2), np.float32))

    gateway.graph = Graph(replaced, gateway.graph.retriever, None, {})
    with pytest.raises(Exception, match="was replaced while these texts were embedded"):
        await gateway.embed(["x" * 700, "y" * 700], "document", gateway.new_context())


@pytest.mark.parametrize(("texts", "pieces"), [([], 1), (["a"] * 3, 1), (["a" * 150] * 3, 2), (["a" * 50_000, "b"], 2)])
async def test_pieces_keep_every_text_in_order(gateway: Gateway, texts: list[str], pieces: int) -> None:
    sent: list[tuple[str, ...]] = []

    async def embedder(message: messages.Embed, deadline: float) -> messages.Embedded:
        sent.append(message.texts)
        return messages.Embedded("f", np.zeros((len(message.texts), 2), np.float32))

    gateway.graph = Graph(embedder, gateway.graph.retriever, None, {})
    made = await gateway.embed(texts, "document", gateway.new_context())
    assert [text for piece in sent for text in piece] == texts
    assert (len(sent), len(made.vectors)) == (pieces, len(texts))


async def test_the_fallback_is_the_same_model_as_suits_a_cpu_and_follows_its_updates(
    local_graph: Any, encoder: Embedder, tiny_encoder: Any, tmp_path: Path
) -> None:
    on_gpu = {"precision": "bf16", "compile": True, "batch_tokens": 65536, "encode_tokens": 16384, "threads": 8}
    first = {"model": str(tiny_encoder.save(tmp_path / "first")), "cpu_fallback": True, "deployment": {"num_gpus": 0.5}} | on_gpu
    settings = local_graph.local_settings(tmp_path, embedder=first)
    replica = CpuEmbedderReplica(settings, Metrics(MemorySink()))
    # As the chart updates both deployments.
    await replica.reconfigure(on_gpu | {"model": first["model"]})
    usual, used = EmbedderSettings(), replica.slot.model
    loaded = replica._target
    assert (loaded.precision, loaded.compile, loaded.deployment.num_gpus) == ("fp32", False, 0)
    assert (loaded.batch_tokens, loaded.encode_tokens, loaded.threads) == (usual.batch_tokens, usual.encode_tokens, usual.threads)
    assert loaded.model == first["model"]
    assert used.fingerprint == Embedder.load(EmbedderSettings(model=first["model"], precision="fp32"), tmp_path).fingerprint
    await replica.close()
