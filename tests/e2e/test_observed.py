"""One request followed through the processes of a real graph: its trace, its log line, its events."""

import json
from typing import Any

from tests.waiting import until

TEXT = "an unrepeatable zeppelin heist"


def test_a_request_is_found_in_trace_log_and_events(server: Any, tools: Any) -> None:
    body = {"text": TEXT, "k": 3, "expand": True, "user_id": "u-e2e"}
    response = server.client.post(f"{server.url}/v1/search", json=body, headers={"x-request-id": "observed"})
    assert response.status_code == 200
    trace_id, ids = response.headers["x-trace-id"], [item["id"] for item in response.json()["items"]]

    parts = {f"matinee-{part}" for part in ("gateway", "embedder", "enhancer", "retriever")}
    until(lambda: {service for service, _ in server.collector.of(trace_id)} == parts, "all parts send their spans")
    found = server.collector.of(trace_id)
    for part, stage in (("embedder", "embed"), ("enhancer", "enhance"), ("retriever", "retrieve")):
        assert found[f"matinee-{part}", part].parent == found["matinee-gateway", stage].id
        assert found["matinee-gateway", stage].parent == found["matinee-gateway", "POST /v1/search"].id

    line = until(lambda: _line(server, "observed"), "the request has its line")
    assert (line["part"], line["endpoint"], line["outcome"], line["trace_id"]) == ("gateway", "search", "ok", trace_id)
    assert line["stages"].keys() == {"enhance", "embed", "retrieve"}

    # Signed by one gateway, and by the key of this machine's home.
    token = response.json()["feedback_token"]
    server.client.post(f"{server.url}/v1/feedback", json={"token": token, "clicked": ids[:1]}).raise_for_status()
    events = until(lambda: len(seen := _events(server, "u-e2e")) == 2 and seen, "both events are written")
    written_by_it = [server.home / "feedback.keys", server.home / "server.json", *(server.home / "events").rglob("*")]
    assert not [path for path in written_by_it if path.stat().st_mode & 0o077], "nobody else reads them"
    assert [(event["event"], event.get("items", event.get("item"))) for event in events] == [("impression", ids), ("clicked", ids[0])]
    assert len({event["impression"] for event in events}) == 1
    assert events[0]["request_id"] == "observed"

    written = server.log.read_text(errors="replace") + json.dumps(events)
    assert TEXT not in written
    assert not any(TEXT.encode() in body for body in server.collector.bodies)


def _line(server: Any, request_id: str) -> dict[str, Any] | None:
    """The request's line; Ray, where it serves, puts the name of the replica before each."""
    lines = (line[line.index("{") :] for line in server.log.read_text(errors="replace").splitlines() if '"message":"request"' in line)
    return next((told for told in map(json.loads, lines) if told["request_id"] == request_id), None)


def _events(server: Any, user_id: str) -> list[dict[str, Any]]:
    lines = [line for path in sorted((server.home / "events").rglob("*.jsonl")) for line in path.read_text().splitlines()]
    return sorted((event for event in map(json.loads, lines) if event["user_id"] == user_id), key=lambda event: event["at"])
