"""The Enhancer's replica on a tiny Gemma: an adapter goes live and back between answers, and a wrong one changes nothing."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matinee.errors import MatineeError
from matinee.items import Item
from matinee.models.registry import ArtifactStore, ModelOrigin
from serve.graph import messages
from serve.graph.enhancer import EnhancerReplica
from serve.graph.wire import WireMessage
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink
from tests.waiting import HANG_S

FILM = Item(kind="film", title="Tenet", year=2020, overview="An agent fights for the survival of the world through time.")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where conversions are kept: one conversion for each model of these tests."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
async def replica(local_graph: Any, tiny_base: Path, models: Path) -> AsyncIterator[EnhancerReplica]:
    enhancer = {"model": str(tiny_base), "max_new_tokens": 8, "retries": 0, "threads": 1}
    replica = EnhancerReplica(local_graph.local_settings(models, enhancer=enhancer), Metrics(MemorySink()))
    replica.open()
    yield replica
    await replica.close()


async def described(replica: EnhancerReplica) -> str:
    """The name of the model that a description is by."""
    [told] = await replica.call([WireMessage(messages.Describe(FILM), 60)])
    assert not isinstance(told, MatineeError), told
    return str(told.model)


async def settled() -> None:
    for thread in threading.enumerate():
        if thread.name == "enhancer-swap":
            await asyncio.to_thread(thread.join, HANG_S)


async def test_an_adapter_goes_live_and_back_between_answers(
    replica: EnhancerReplica, tiny_base: Path, tiny_adapter: Path, models: Path
) -> None:
    assert (await replica.info())["precision"] == "ct2-int8"
    over = asyncio.Event()

    async def ask() -> list[str]:
        names = []
        while not over.is_set():
            names.append(await described(replica))
        return names

    asking = asyncio.create_task(ask())
    replica.update({"adapter": str(tiny_adapter)})
    assert await described(replica) == str(tiny_base)
    await settled()
    with_adapter = await described(replica)
    info = await replica.info()
    assert (info["adapter"], info["trouble"]) == (str(tiny_adapter), None)
    assert with_adapter == f"{tiny_base}+{info['adapter_digest'][:12]}"
    replica.update({})
    await settled()
    assert await described(replica) == str(tiny_base)
    over.set()
    assert set(await asking) == {str(tiny_base), with_adapter}
    # Kept by content: neither is ever converted again.
    assert len(list((models / "models").glob("ct2-int8-*"))) == 2


async def test_an_adapter_can_be_a_published_artifact(replica: EnhancerReplica, tiny_adapter: Path, models: Path) -> None:
    manifest = ArtifactStore(str(models / "artifacts")).publish(tiny_adapter, ModelOrigin(base="tiny"))
    replica.update({"adapter": f"artifact:{manifest.digest}"})
    await settled()
    info = await replica.info()
    assert (info["trouble"], bool(info["adapter_digest"])) == (None, True)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("missing", "is not a folder"),
        ("unpublished", "no such model there"),
        ("no adapter", "has no adapter_config.json"),
        ("another width", "was trained on another base model"),
        ("cut off", "cut off or damaged"),
    ],
)
async def test_a_wrong_adapter_is_explained_and_the_old_model_stays(
    replica: EnhancerReplica, tiny_gemma: Any, tiny_base: Path, tiny_adapter: Path, tmp_path: Path, case: str, said: str
) -> None:
    wrong = tmp_path / "wrong"
    if case == "no adapter":
        wrong = tiny_base
    elif case == "another width":
        wrong = tiny_gemma.save_adapter(tiny_gemma.save_model(tmp_path / "wide", hidden_size=96), wrong)
    elif case == "cut off":
        shutil.copytree(tiny_adapter, wrong)
        weights = wrong / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-10])
    replica.update({"adapter": "artifact:" + "0" * 64 if case == "unpublished" else str(wrong)})
    await settled()
    info = await replica.info()
    assert said in info["trouble"]
    assert info["adapter"] is None
    assert await described(replica) == str(tiny_base)


async def test_a_gateway_forgets_what_a_replaced_model_described(local_service: Any, local_graph: Any) -> None:
    fake = local_graph.FakeEnhancer()
    by = ["base"]

    async def part(unit: messages.Describe, deadline: float) -> Any:
        return replace(await fake(unit, deadline), model=by[0])

    local_service.graph = replace(local_service.graph, enhancer=part)
    other = FILM.model_copy(update={"title": "Heat"})

    async def model(item: Item) -> str:
        return str((await local_service.describe(item, local_service.new_context())).model)

    assert await model(FILM) == "base"
    by[0] = "base+adapter"
    assert await model(FILM) == "base"
    assert await model(other) == "base+adapter"
    assert await model(FILM) == "base+adapter"


@pytest.mark.parametrize(("least", "loads"), [(0, True), (1, False)])
def test_a_replica_that_starts_for_a_description_loads_its_model_at_once(local_graph: Any, tmp_path: Path, least: int, loads: bool) -> None:
    settings = local_graph.local_settings(tmp_path, enhancer={"deployment": {"min_replicas": least}})
    assert EnhancerReplica(settings, Metrics(MemorySink())).loads_at_start is loads
