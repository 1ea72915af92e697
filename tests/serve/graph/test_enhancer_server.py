"""The Enhancer's replica on engine `openai`: many descriptions under way, and answers without them where the server fails."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matinee.errors import MatineeError
from matinee.items import Item
from matinee.models.types import Description
from serve.graph import messages
from serve.graph.enhancer import EnhancerReplica
from serve.graph.wire import WireMessage
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink
from tests.model_server import ModelServer, serving
from tests.waiting import HANG_S, until_async

FILM = Item(kind="film", title="Tenet", year=2020, overview="An agent fights for the survival of the world through time.")
OTHERS = [FILM.model_copy(update={"title": f"Film {n}"}) for n in range(12)]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as server:
        yield server


@pytest.fixture
def replica(local_graph: Any, server: ModelServer, tmp_path: Path) -> Iterator[EnhancerReplica]:
    settings = server.settings(batch_size=4, server_retries=0, timeout_s=HANG_S)
    replica = EnhancerReplica(local_graph.local_settings(tmp_path, enhancer=settings), Metrics(MemorySink()))
    replica.reconfigure({})
    yield replica
    replica.close()


async def describe(replica: EnhancerReplica, item: Item, seconds: float = HANG_S) -> Description | MatineeError:
    [told] = await replica.call([WireMessage(messages.Describe(item), seconds)])
    return told


async def test_a_place_at_the_server_is_taken_as_soon_as_it_is_free(replica: EnhancerReplica, server: ModelServer) -> None:
    slow = threading.Event()

    def wait(handler: Any) -> None:
        assert slow.wait(HANG_S)
        handler.reply(200, b'{"choices": [{"text": " an agent."}]}')

    server.turns.append(wait)
    asked = [asyncio.create_task(describe(replica, film)) for film in OTHERS]
    # One is slow: all others pass by it, up to four at a time.
    await until_async(lambda: sum(task.done() for task in asked) == 11)
    slow.set()
    told = await asyncio.gather(*asked)
    assert [getattr(description, "source", None) for description in told] == ["model"] * 12
    assert 1 < server.most_under_way <= 4


async def test_a_failing_server_is_counted_shown_and_left_out_of_answers(
    replica: EnhancerReplica, server: ModelServer, local_graph: Any, local_service: Any
) -> None:
    service = local_service
    service.graph = replace(service.graph, enhancer=local_graph.as_part(replica.call))
    assert (await service.describe(FILM, service.new_context())).source == "model"
    server.turns.append(503)
    context = service.new_context()
    assert await service._describe_or_degrade(OTHERS[0], context, bulk=False) is None
    assert context.degraded == ["enhancer"]
    assert "refused (status 503" in (await replica.info())["trouble"]
    counted = {tags: value for (name, tags), value in replica._metrics.sink.values.items() if name == "matinee_enhancer_server_failures"}  # type: ignore[attr-defined]
    assert counted == {(("reason", "refused"),): 1}
    assert (await service.describe(OTHERS[1], service.new_context())).source == "model"
    assert (await replica.info())["trouble"] is None
    # It was started again, with other models.
    server.models = ["another"]
    context = service.new_context()
    assert await service._describe_or_degrade(OTHERS[2], context, bulk=False) is None
    assert context.degraded == ["enhancer"]


async def test_a_slow_server_is_left_at_the_deadline_and_frees_its_place(replica: EnhancerReplica, server: ModelServer) -> None:
    server.hold = threading.Event()
    late = await asyncio.gather(*(describe(replica, film, 0.3) for film in OTHERS[:4]))
    assert all(isinstance(told, MatineeError) or told.source == "template" for told in late)
    server.hold.set()
    told = await describe(replica, FILM)
    assert isinstance(told, Description)
    assert told.source == "model"


async def test_a_replica_is_well_without_its_server_and_finds_it_later(server: ModelServer, local_graph: Any, tmp_path: Path) -> None:
    server.down = 2
    settings = server.settings(server_retries=0)
    replica = EnhancerReplica(local_graph.local_settings(tmp_path, enhancer=settings), Metrics(MemorySink()))
    try:
        replica.reconfigure({})
        replica.check_health()
        assert "status 503" in (await replica.info())["trouble"]
        assert isinstance(await describe(replica, FILM), MatineeError)
        assert isinstance(await describe(replica, FILM), Description)
    finally:
        replica.close()


async def test_the_engine_changes_in_place(replica: EnhancerReplica, server: ModelServer, tiny_base: Path) -> None:
    local = {"engine": "local", "url": None, "model": str(tiny_base), "max_new_tokens": 8, "threads": 1, "batch_size": 3}
    replica.reconfigure(local)
    assert (replica.batcher.max_batch, replica.batcher.max_in_flight) == (3, 1)
    await until_async(lambda: replica.slot.model.name == str(tiny_base))
    server.models.append("tuned")
    replica.reconfigure({"model": "tuned"})
    # The local model, which is not for two threads, is the current one until the other has been checked.
    await until_async(lambda: replica.slot.model.name == "tuned")
    await until_async(lambda: (replica.batcher.max_batch, replica.batcher.max_in_flight) == (1, 4))
    replica.reconfigure({"model": "nobody knows it"})
    end = time.monotonic() + HANG_S
    while (await replica.info())["trouble"] is None:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    assert "has no model 'nobody knows it'" in (await replica.info())["trouble"]
    assert isinstance(await describe(replica, FILM), Description)
    # What failed is tried again only while it is wanted.
    replica.reconfigure({"model": "tuned"})
