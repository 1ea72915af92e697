"""What a user does with a running server: real models and a real index, in one process and on real Ray."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.waiting import HANG_S

FILM = {
    "id": "e2e-1",
    "kind": "film",
    "title": "The Clockwork Botanist",
    "year": 2031,
    "overview": "A botanist repairs mechanical flowers.",
}


def test_recommend_says_why(server: Any) -> None:
    body = server.post("/v1/recommend", {"likes": ["Inception"], "k": 5})
    assert [like["title"] for like in body["likes"]] == ["Inception"]
    assert len(body["items"]) == 5
    for item in body["items"]:
        assert "Inception" in item["reason"]
        assert item["item"]["title"] in item["reason"]


@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
def test_search_finds_by_meaning_and_by_words(server: Any, mode: str) -> None:
    items = server.post("/v1/search", {"text": "a thief who steals secrets from dreams", "mode": mode, "k": 10})["items"]
    assert "Inception" in {item["item"]["title"] for item in items}


def test_the_enhancer_loads_at_the_start_where_that_is_set(server: Any) -> None:
    at_start = server.info_at_start
    assert ("digest" in at_start["enhancer"]) == (at_start["placement"] == "ray")
    assert at_start["enhancer"]["trouble"] is None


def test_gemma_describes(server: Any) -> None:
    body = server.post("/v1/describe", {"id": "inception-2010"})
    assert len(body["description"].split()) >= 8
    assert "Inception" in body["description"]
    assert server.get("/v1/info")["enhancer"]["trouble"] is None


def test_a_cold_item_is_described_and_liked(server: Any) -> None:
    cold = {
        "kind": "film",
        "title": "Nine Lanterns",
        "year": 2032,
        "genres": ["Science Fiction"],
        "overview": "A crew drifts in deep space.",
    }
    response = server.client.post(f"{server.url}/v1/recommend", json={"likes": [{"item": cold}], "enhance": True, "k": 3})
    body = response.json()
    assert body["degraded"] == []
    assert len(body["items"]) == 3
    assert "Nine Lanterns" in body["items"][0]["reason"]
    assert {"enhance", "embed", "retrieve", "total"} <= {stage.partition(";")[0] for stage in response.headers["server-timing"].split(", ")}


def test_put_find_delete(server: Any) -> None:
    [state] = server.put(FILM)
    assert server.post("/v1/search", {"text": "mechanical flowers", "k": 1})["items"][0]["id"] == state["id"]
    server.delete("e2e-1")
    assert server.status("/v1/items/e2e-1") == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"[" * 100_000, 400), (b'{"text":"\xff"}', 400), (b"x" * 1_000_001, 413), (b'{"text":" "}', 422), (b'{"text":"x","k":0}', 422)],
    ids=["deep", "not UTF-8", "too large", "blank", "k"],
)
def test_errors_come_in_the_envelope(server: Any, body: bytes, status: int) -> None:
    response = server.client.post(
        f"{server.url}/v1/search", content=body, headers={"content-type": "application/json", "x-request-id": "e2e"}
    )
    assert response.status_code == status
    assert set(response.json()) == {"code", "message", "request_id"}
    assert response.json()["request_id"] == "e2e"
    assert response.headers.get_list("x-request-id") == ["e2e"]


def test_the_api_and_the_metrics_listen_on_loopback_and_one_process_on_nothing_else(server: Any) -> None:
    """What else Ray listens on is attacked in test_open_ports.py."""
    process = psutil.Process(server.process.pid)
    asked_for = {("127.0.0.1", urlsplit(url).port) for url in (server.url, server.metrics_url)}
    family = [process, *process.children(recursive=True)]
    listening = {c.laddr for one in family for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    if server.get("/v1/info")["placement"] == "process":
        assert family == [process]
        assert listening == asked_for
    assert asked_for <= listening


def test_probes_and_page(server: Any) -> None:
    assert server.get("/livez") == {"alive": True}
    assert server.get("/readyz")["ready"] is True
    assert "<html" in server.client.get(f"{server.url}/").text


def test_too_many_at_once_are_refused_in_the_envelope_and_the_others_answered(server: Any) -> None:
    together = threading.Barrier(24)

    def describe(number: int) -> httpx.Response:
        together.wait(HANG_S)
        item = {"kind": "film", "title": f"Nobody Made Number {number}", "overview": "A lamp is lit and nobody comes."}
        return httpx.post(f"{server.url}/v1/describe", json={"item": item}, timeout=HANG_S)

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(describe, range(24)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) <= 24 - 8
    for answer in refused:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert set(answer.json()) == {"code", "message", "request_id"}
        assert answer.json()["code"] == "overloaded"


def test_the_command_line_asks_the_server(server: Any) -> None:
    told = server.cli("info", "--json")
    assert json.loads(told.stdout)["server"] == server.url
    found = server.cli("search", "a heist inside dreams", "-k", "3", "--json")
    assert len(json.loads(found.stdout)["items"]) == 3
    liked = server.cli("recommend", "Inceptoin", "-k", "2", "--json")
    assert json.loads(liked.stdout)["likes"][0]["title"] == "Inception"
    nothing = server.cli("recommend", "No Such Film At All")
    assert nothing.returncode == 6
    assert "no item is titled" in nothing.stderr
