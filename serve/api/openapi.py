"""The OpenAPI document as text, made without Ray and without a model: `python -m serve openapi`, committed as `docs/openapi.json`."""

import json
from typing import NoReturn

from matinee.settings.load import load_settings
from serve.api.app import create_app
from serve.api.auth import ApiKeys
from serve.graph.gateway import Gateway
from serve.graph.parts import Graph
from serve.telemetry.metrics import Metrics
from serve.telemetry.sinks import NullSink


def document() -> str:
    settings = load_settings(environ={})
    gateway = Gateway(settings, Graph(_no_part, _no_part, None, {}), Metrics(NullSink()))
    return json.dumps(create_app(gateway, ApiKeys(settings.serving)).openapi(), indent=2, ensure_ascii=False) + "\n"


async def _no_part(message: object, deadline: float) -> NoReturn:
    raise AssertionError("the document needs no part of the graph")
