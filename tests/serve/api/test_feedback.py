"""`POST /v1/feedback` and the impressions of answers: what ends up in the event log, and what does not."""

import json
from pathlib import Path
from typing import Any

import pytest
from serve_helpers import error


class Kept:
    """The events under a folder; each is written at once."""

    def __init__(self, folder: Path) -> None:
        self.uri = folder / "events"
        self.settings = {"uri": str(self.uri), "flush_s": 3600}

    async def __call__(self, api: Any) -> list[dict[str, Any]]:
        """All events, after the end of the app's life."""
        async with api.client._transport.app.router.lifespan_context(api.client._transport.app):
            pass
        return [json.loads(line) for path in sorted(self.uri.rglob("*.jsonl")) for line in path.read_text().splitlines()]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def counted(api: Any, name: str) -> dict[str, float]:
    values = api.service.metrics.sink.values
    return {dict(tags).popitem()[1]: value for (found, tags), value in values.items() if found == name}


async def test_what_was_answered_and_what_became_of_it(bent: Any, kept: Kept) -> None:
    async with bent(events=kept.settings) as api:
        answer = (await api.post("/v1/search", {"text": "a secret wish", "k": 2, "user_id": "u-17"})).json()
        ids = [item["id"] for item in answer["items"]]
        await api.get(f"/v1/items/{ids[0]}/similar?k=1")
        body = {"request_id": answer["request_id"], "user_id": "u-17", "shown": ids, "liked": [ids[0]], "disliked": ["some-film"]}
        taken = await api.post("/v1/feedback", body)
        events = await kept(api)
        counts = counted(api, "matinee_events")
    assert (taken.status_code, taken.json()["accepted"]) == (202, 4)
    impression, similar, *feedback = events
    assert {key: impression[key] for key in ("event", "endpoint", "user_id", "items", "request_id", "catalogue")} == {
        "event": "impression",
        "endpoint": "search",
        "user_id": "u-17",
        "items": ids,
        "request_id": answer["request_id"],
        "catalogue": "demo",
    }
    assert (similar["endpoint"], len(similar["items"])) == ("similar", 1)
    assert [(event["event"], event["user_id"], event["request_id"]) for event in feedback] == [
        (kind, "u-17", answer["request_id"]) for kind in ("shown", "shown", "liked", "disliked")
    ]
    assert [event["item"] for event in feedback[:3]] == [*ids, ids[0]]
    assert "secret wish" not in json.dumps(events)
    assert counts == {"impression": 2, "shown": 2, "liked": 1, "disliked": 1}


async def test_the_catalogues_own_id_and_the_index_id_are_one(bent: Any, kept: Kept) -> None:
    async with bent(events=kept.settings) as api:
        uid = (await api.post("/v1/search", {"text": "x", "k": 1})).json()["items"][0]
        await api.post("/v1/feedback", {"clicked": [uid["item"]["id"], uid["id"]]})
        events = await kept(api)
    assert [event["item"] for event in events if event["event"] == "clicked"] == [uid["id"]] * 2


async def test_texts_are_kept_where_the_settings_say_so(bent: Any, kept: Kept) -> None:
    async with bent(events=kept.settings, serving={"log_texts": True}) as api:
        await api.post("/v1/search", {"text": "a secret wish"})
        await api.post("/v1/recommend", {"text": "another"})
        await api.post("/v1/recommend", {})
        events = await kept(api)
    assert [event.get("text") for event in events] == ["a secret wish", "another", None]


async def test_without_a_log_feedback_is_refused_and_answers_are_not(bent: Any) -> None:
    async with bent() as api:
        assert error(await api.post("/v1/feedback", {"liked": ["x"]})) == (404, "events_off")
        assert (await api.post("/v1/search", {"text": "x", "user_id": "u"})).status_code == 200


async def test_a_full_log_refuses_feedback_and_still_answers(bent: Any, kept: Kept) -> None:
    async with bent(events=kept.settings | {"max_waiting": 2, "flush_events": 2}) as api:
        assert error(await api.post("/v1/feedback", {"liked": ["a", "b", "c"]})) == (503, "overloaded")
        lost = counted(api, "matinee_events_dropped")
        assert (await api.post("/v1/search", {"text": "x"})).status_code == 200
        assert len(await kept(api)) == 1
    assert lost == {"full": 3}


async def test_a_log_that_cannot_be_written_disturbs_no_answer_and_is_counted(bent: Any, kept: Kept) -> None:
    kept.uri.write_text("a file")
    async with bent(events=kept.settings) as api:
        assert (await api.post("/v1/search", {"text": "x"})).status_code == 200
        await kept(api)
        assert counted(api, "matinee_events_dropped") == {"unwritten": 1}


@pytest.mark.parametrize(
    "body", [{}, {"liked": []}, {"liked": [""]}, {"liked": "x"}, {"liked": ["x"] * 1001}, {"bought": ["x"]}, {"user_id": "u"}]
)
async def test_feedback_about_nothing_or_of_an_unknown_kind(api: Any, body: dict[str, Any]) -> None:
    assert error(await api.post("/v1/feedback", body)) == (422, "invalid")
