"""Spans as a collector gets them: one trace through gateway and parts, nothing of what users wrote, nothing at all when it is off."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from matinee.settings.serving import TracingSettings
from serve.telemetry.tracing import Tracing, traceparent

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "zanzibar lighthouse keeper"


@pytest.fixture(scope="module")
def collector(otlp: Any) -> Iterator[Any]:
    with otlp.collector() as collector:
        yield collector


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(local_graph: Any, tmp_path_factory: pytest.TempPathFactory, collector: Any) -> AsyncIterator[Any]:
    """Answers of one traced app, as (response, spans of its trace); all spans are sent by the time of the first look."""
    from serve.api.app import create_app
    from serve.api.auth import ApiKeys

    home = tmp_path_factory.mktemp("traced")
    settings = local_graph.local_settings(home, tracing={"endpoint": collector.url})
    async with local_graph.build_local_graph(home, films=local_graph.demo_films()[:5], settings=settings) as service:
        app = create_app(service, ApiKeys(settings.serving))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
        async with client, app.router.lifespan_context(app):
            answers = {
                "search": await client.post("/v1/search", json={"text": SECRET}),
                "called": await client.get("/v1/facets", headers={"traceparent": CALLER}),
                "unsampled": await client.get("/v1/facets", headers={"traceparent": CALLER[:-1] + "0"}),
                "missing": await client.post("/v1/recommend", json={"likes": [SECRET]}),
                "nowhere": await client.get(f"/{SECRET}"),
            }
    yield answers


def spans(traced: Any, collector: Any, name: str) -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = collector.of(traced[name].headers["x-trace-id"])
    return found


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_search_is_one_trace_through_gateway_and_retriever(traced: Any, collector: Any) -> None:
    assert traced["search"].status_code == 200
    found = spans(traced, collector, "search")
    root, embed, rank = (found["matinee-gateway", name] for name in ("POST /v1/search", "embed", "retrieve"))
    hop = found["matinee-retriever", "retriever"]
    assert root.parent == ""
    assert embed.parent == rank.parent == root.id
    assert hop.parent == rank.id
    assert root.ms >= rank.ms >= 0
    assert root.attributes["matinee.outcome"] == "ok"
    assert root.attributes["http.route"] == "/v1/search"
    assert root.attributes["matinee.request_id"] == traced["search"].headers["x-request-id"]
    assert (hop.attributes["matinee.unit"], hop.attributes["matinee.batch"], hop.attributes["matinee.outcome"]) == ("Rank", 1, "ok")
    assert hop.attributes["matinee.waited_ms"] >= 0


async def test_a_traceparent_that_came_is_continued_and_its_choice_respected(traced: Any, collector: Any) -> None:
    assert traced["called"].headers["x-trace-id"] == CALLER.split("-")[1]
    assert spans(traced, collector, "called")["matinee-gateway", "GET /v1/facets"].parent == CALLER.split("-")[2]
    assert "x-trace-id" not in traced["unsampled"].headers
    assert len([span for span in collector.spans if span.name == "GET /v1/facets"]) == 1


async def test_errors_are_codes(traced: Any, collector: Any) -> None:
    found = spans(traced, collector, "missing")
    assert found["matinee-gateway", "retrieve"].error == "not_found"
    hop = found["matinee-retriever", "retriever"]
    assert (hop.error, hop.attributes["matinee.outcome"]) == ("not_found", "not_found")
    assert found["matinee-gateway", "POST /v1/recommend"].attributes["matinee.outcome"] == "not_found"
    assert ("matinee-gateway", "GET") in spans(traced, collector, "nowhere")


async def test_nothing_that_a_user_wrote_is_sent(traced: Any, collector: Any) -> None:
    sent = b"".join(collector.bodies).lower()
    assert b"matinee.outcome" in sent
    for word in SECRET.split():
        assert word.encode() not in sent


async def test_off_there_is_no_provider_and_no_context() -> None:
    tracing = Tracing(TracingSettings(), "gateway")
    with tracing.request([(b"traceparent", CALLER.encode())]) as span, tracing.stage("embed"):
        assert not span.is_recording()
        assert traceparent() is None
    tracing.close()


async def test_the_ratio_decides_where_nobody_has() -> None:
    tracing = Tracing(TracingSettings(endpoint="http://127.0.0.1:9", sample_ratio=0), "gateway")
    with tracing.request([]) as span:
        assert not span.is_recording()
    tracing.close()


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", "http://collector/?key=x", "http://user:secret@collector"])
async def test_an_endpoint_is_a_base_url(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        TracingSettings(endpoint=endpoint)


async def test_a_collector_that_is_gone_disturbs_nobody(bent: Any, tmp_path: Path) -> None:
    async with bent(tracing={"endpoint": "http://127.0.0.1:9"}) as api:
        assert (await api.post("/v1/search", {"text": "robots"})).status_code == 200
