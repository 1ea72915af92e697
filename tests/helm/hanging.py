"""A Serve application for the tests: the real replicas of both models, around models that hang when they read the word "hang"."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray import serve as ray_serve
from starlette.requests import Request

from matinee.errors import MatineeError
from matinee.items import Item
from matinee.models.types import Description
from matinee.settings.load import load_settings
from serve.graph.clients import model_client
from serve.graph.embedder import EmbedderReplica
from serve.graph.enhancer import EnhancerReplica
from serve.graph.handles import RayRemote
from serve.graph.messages import Describe, Embed
from serve.telemetry.metrics import Metrics
from serve.telemetry.sinks import NullSink

HOME = Path("/nonexistent")
SETTINGS = load_settings(
    {"home": HOME, "embedder": {"hang_s": 1}, "enhancer": {"hang_s": 1, "deadline_s": 1}, "serving": {"deadline_s": 2}}, environ={}
)


class Model(SimpleNamespace):
    """Answers with the id of its process."""

    model_id = name = "pid"
    precision = "fp32"
    tokens_read = 0
    fingerprint = str(os.getpid())

    def info(self) -> dict[str, Any]:
        return {"precision": "fp32", "digest": self.fingerprint}

    def encode(self, texts: Sequence[str], *, kind: str) -> Any:
        self._hang("hang" in texts)
        return np.ones((len(texts), 1), np.float32)

    def describe(self, items: Sequence[Item], *, deadline: float) -> list[Description]:
        self._hang(any(item.title == "hang" for item in items))
        pid = str(os.getpid())
        return [Description(pid, "model", (), 1.0, 1, 1, pid, False, 0.0) for _ in items]

    def _hang(self, hangs: bool) -> None:
        if hangs:
            threading.Event().wait()


@ray_serve.deployment(name="Embedder", user_config={}, health_check_period_s=1)
class Embedder(EmbedderReplica):
    def __init__(self) -> None:
        super().__init__(SETTINGS, Metrics(NullSink()))

    def load(self, settings: Any) -> Any:
        return Model(fingerprint=str(os.getpid()))


@ray_serve.deployment(name="Enhancer", user_config={}, health_check_period_s=1)
class Enhancer(EnhancerReplica):
    def __init__(self) -> None:
        super().__init__(SETTINGS, Metrics(NullSink()))

    def load(self, settings: Any) -> Any:
        return Model()


@ray_serve.deployment(name="Front")
class Front:
    """`?part=embedder&word=hang`: the id of the process that answered, or the error."""

    def __init__(self, embedder: Any, enhancer: Any) -> None:
        metrics = Metrics(NullSink())
        self._embed = model_client("embedder", RayRemote[Embed, Any](embedder), SETTINGS, metrics)
        self._describe = model_client("enhancer", RayRemote[Describe, Any](enhancer), SETTINGS, metrics)

    async def __call__(self, request: Request) -> str:
        word, deadline = request.query_params["word"], time.monotonic() + SETTINGS.serving.deadline_s
        try:
            if request.query_params["part"] == "embedder":
                return str((await self._embed(Embed((word,)), deadline)).fingerprint)
            return str((await self._describe(Describe(Item(title=word)), deadline)).model)
        except MatineeError as error:
            return f"{error.code}: {error}"


app = Front.bind(Embedder.bind(), Enhancer.bind())
