"""The OpenAPI document as text, made without Ray and without a model: `python -m serve openapi`, committed as `docs/openapi.json`."""

import json
from typing import Any

from matinee.settings.load import load_settings
from serve.api.app import create_app
from serve.api.auth import Access
from serve.graph.gateway import Service
from serve.graph.parts import Graph
from serve.telemetry.metrics import MemorySink, Metrics


def document() -> str:
    settings = load_settings(environ={})
    metrics = Metrics(MemorySink())
    service = Service(settings, Graph(_no_part, _no_part, None, {}), metrics)
    return json.dumps(create_app(service, Access(settings.serving), metrics).openapi(), indent=2, ensure_ascii=False) + "\n"


async def _no_part(unit: Any, deadline: float) -> Any:
    raise AssertionError("the document asks no part of the graph")
