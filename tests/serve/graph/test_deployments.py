"""The Enhancer as a deployment of Ray Serve: its model loads with the replica, or with the first item; a failure is the replica's."""

import time
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from matinee.errors import ModelError
from serve.errors import UnavailableError
from serve.graph.wire import WireMessage


class Replica:
    """Answers with its adapter, and fails to load the adapter "broken"."""

    def __init__(self, *_: object) -> None:
        self.adapter: object = None

    def reconfigure(self, user_config: Mapping[str, object]) -> None:
        self.adapter = user_config.get("adapter")
        if self.adapter == "broken":
            raise ModelError("it does not fit")

    async def call(self, batch: Sequence[WireMessage[str]]) -> list[object]:
        return [self.adapter for _ in batch]

    async def stream(self, batch: Sequence[WireMessage[str]]) -> AsyncIterator[list[tuple[int, object]]]:
        for place, hop in enumerate(batch):
            assert hop.waited_s > 0, "the load took time"
            yield [(place, self.adapter)]

    async def info(self) -> dict[str, object]:
        return {"adapter": self.adapter}

    def check_health(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def deployed(local_graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a replica of the deployment: `deployed(load_at_start)`."""
    with warnings.catch_warnings():
        # Its own, at import, are Ray's business.
        warnings.simplefilter("ignore")
        from serve.graph import deployments
    monkeypatch.setattr(deployments, "EnhancerReplica", Replica)
    monkeypatch.setattr(deployments, "start_telemetry", lambda *_: None)
    # The type checker does not see that Serve's decorator replaces the class.
    deployment: Any = deployments.EnhancerDeployment
    return lambda at_start: deployment.func_or_class(local_graph.local_settings(tmp_path, enhancer={"load_at_start": at_start}))


async def test_the_model_loads_with_the_first_item(deployed: Any) -> None:
    replica = deployed(False)
    await replica.reconfigure({})
    assert (await replica.info())["loaded"] is False
    await replica.reconfigure({"adapter": "words"})
    assert (await replica.info())["loaded"] is False
    replica.check_health()
    assert [pairs async for pairs in replica.stream([WireMessage("a", 60.0), WireMessage("b", 60.0)])] == [[(0, "words")], [(1, "words")]]
    await replica.reconfigure({"adapter": None})
    assert await replica.call([WireMessage("a", 60.0)]) == [None]
    assert abs(await replica.clock() - time.time()) < 60


async def test_the_model_loads_with_the_replica(deployed: Any) -> None:
    replica = deployed(True)
    await replica.reconfigure({"adapter": "words"})
    assert await replica.info() == {"adapter": "words"}


async def test_a_model_that_fails_at_the_start_is_the_replicas_failure(deployed: Any) -> None:
    with pytest.raises(ModelError, match="it does not fit"):
        await deployed(True).reconfigure({"adapter": "broken"})
    late = deployed(False)
    await late.reconfigure({"adapter": "broken"})
    with pytest.raises(UnavailableError, match="it does not fit"):
        await late.call([WireMessage("a", 60.0)])
    await late.reconfigure({"adapter": "words"})
    assert await late.call([WireMessage("a", 60.0)]) == ["words"]
