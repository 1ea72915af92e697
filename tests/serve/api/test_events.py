"""`POST /v1/feedback` and the impressions of answers: what ends up in the event log, and what does not."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from matinee.events import with_impressions
from serve.api.auth import new_key
from tests.serve.api_client import error


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


async def searched(api: Any, **body: Any) -> tuple[list[str], str]:
    """The ids of an answer, and its token."""
    answer = (await api.post("/v1/search", {"text": "x", "k": 2, **body})).json()
    return [item["id"] for item in answer["items"]], answer["feedback_token"]


async def test_what_was_answered_and_what_became_of_it(bent: Any, kept: Kept) -> None:
    async with bent(events=kept.settings) as api:
        ids, token = await searched(api, text="a secret wish", user_id="u-17")
        similar_answer = (await api.get(f"/v1/items/{ids[0]}/similar?k=1&user_id=u-18")).json()
        taken = await api.post("/v1/feedback", {"token": token, "shown": ids, "liked": [ids[0]], "disliked": [ids[1]]})
        also = {"token": similar_answer["feedback_token"], "clicked": [similar_answer["items"][0]["id"]]}
        assert (await api.post("/v1/feedback", also)).status_code == 202
        events = await kept(api)
        counts = counted(api, "matinee_events")
    assert (taken.status_code, taken.json()["accepted"]) == (202, 4)
    impression, similar, *feedback = events
    assert {key: impression[key] for key in ("event", "endpoint", "user_id", "items", "key", "catalogue")} == {
        "event": "impression",
        "endpoint": "search",
        "user_id": "u-17",
        "items": ids,
        "key": None,
        "catalogue": "demo",
    }
    assert (similar["endpoint"], len(similar["items"])) == ("similar", 1)
    assert [(event["event"], event["user_id"], event["impression"], event["item"]) for event in feedback] == [
        *((kind, "u-17", impression["impression"], id) for kind, id in zip(FEEDBACK_KINDS, [*ids, ids[0], ids[1]], strict=True)),
        ("clicked", "u-18", similar["impression"], similar["items"][0]),
    ]
    assert "secret wish" not in json.dumps(events)
    assert counts == {"impression": 2, "shown": 2, "liked": 1, "disliked": 1, "clicked": 1}


FEEDBACK_KINDS = ("shown", "shown", "liked", "disliked")


async def test_the_catalogues_own_id_and_the_index_id_are_one(bent: Any, kept: Kept) -> None:
    async with bent(events=kept.settings) as api:
        answer = (await api.post("/v1/search", {"text": "x", "k": 1})).json()
        [shown] = answer["items"]
        await api.post("/v1/feedback", {"token": answer["feedback_token"], "clicked": [shown["item"]["id"], shown["id"]]})
        events = await kept(api)
    assert [event["item"] for event in events if event["event"] == "clicked"] == [shown["id"]]


async def test_the_request_id_of_a_client_names_no_impression(bent: Any, kept: Kept) -> None:
    """The attack: another answer under the same request id, so that the user's clicks are joined with the attacker's query."""
    same = {"x-request-id": "chosen-by-a-client"}
    async with bent(events=kept.settings, serving={"log_texts": True}) as api:
        answer = (await api.post("/v1/search", {"text": "a heist", "user_id": "u", "k": 1}, headers=same)).json()
        await api.post("/v1/search", {"text": "poison", "user_id": "attacker", "k": 1}, headers=same)
        await api.post("/v1/feedback", {"token": answer["feedback_token"], "clicked": [answer["items"][0]["id"]]}, headers=same)
        await kept(api)
    [clicked] = [event for _, event in with_impressions(str(kept.uri)) if event["event"] == "clicked"]
    assert (clicked["text"], clicked["user_id"]) == ("a heist", "u")


async def test_feedback_cannot_invent_users_items_or_tokens(bent: Any, kept: Kept) -> None:
    async with bent(events=kept.settings) as api:
        ids, token = await searched(api, user_id="u")
        body, signature = token.split(".")
        forged = base64.urlsafe_b64encode(base64.urlsafe_b64decode(f"{body}==").replace(b'"u"', b'"v"')).decode().rstrip("=")
        for bad in (f"{forged}.{signature}", f"{body}.{signature[::-1]}", body, f"{body}.", "x", "\u00e9.x", f"{token}.x", "." * 30_000):
            assert error(await api.post("/v1/feedback", {"token": bad, "liked": ids[:1]})) == (403, "forbidden"), bad
        for other in ("some-film", "00000000-0000-0000-0000-000000000000"):
            assert error(await api.post("/v1/feedback", {"token": token, "liked": [other]})) == (422, "invalid")
        for invented in ({"user_id": "v"}, {"request_id": "r"}):
            assert error(await api.post("/v1/feedback", {"token": token, "liked": ids[:1], **invented})) == (422, "invalid")
        assert error(await api.post("/v1/feedback", {"liked": ids[:1]})) == (422, "invalid")
        events = await kept(api)
    assert [event["event"] for event in events] == ["impression"]


async def test_a_shown_id_with_another_tail_is_an_item_that_was_not_shown(bent: Any, kept: Kept) -> None:
    """The attack: a token that kept the start of each id let its holder invent thousands of items, each one an event of its own."""
    async with bent(events=kept.settings) as api:
        ids, token = await searched(api, user_id="victim")
        start, end = ids[0][:8], ids[0][9:]
        many = [f"{start}-0000-0000-0000-{number:012d}" for number in range(1000)]
        one_off = [f"{ids[0][:i]}{int(ids[0][i], 16) ^ 1:x}{ids[0][i + 1 :]}" for i in range(36) if ids[0][i] != "-"]
        for invented in (many, *([id] for id in one_off), [ids[0], many[0]], [f"00000000-{end}"]):
            assert error(await api.post("/v1/feedback", {"token": token, "shown": ids, "liked": invented})) == (422, "invalid")
        events = await kept(api)
    assert [event["event"] for event in events] == ["impression"]


async def test_each_spelling_of_an_id_is_one_event_in_the_spelling_of_the_index(bent: Any, kept: Kept) -> None:
    async with bent(events=kept.settings) as api:
        [id, _], token = await searched(api)
        spellings = [id.upper(), id.replace("-", ""), f"{{{id}}}", f"urn:uuid:{id}", id]
        for spelling in spellings:
            assert (await api.post("/v1/feedback", {"token": token, "liked": [spelling]})).json()["accepted"] == 1
        assert (await api.post("/v1/feedback", {"token": token, "liked": spellings})).json()["accepted"] == 1
        await kept(api)
    assert [event["item"] for _, event in with_impressions(str(kept.uri)) if event["event"] == "liked"] == [id]


async def test_a_retry_counts_once(bent: Any, kept: Kept) -> None:
    async with bent(events=kept.settings) as api:
        ids, token = await searched(api)
        for _ in range(3):
            assert (await api.post("/v1/feedback", {"token": token, "liked": [*ids, *ids]})).json()["accepted"] == 2
        await kept(api)
    read = [event for _, event in with_impressions(str(kept.uri)) if event["event"] == "liked"]
    assert [event["item"] for event in read] == ids


async def test_a_quota_for_each_key_and_its_name_in_each_event(bent: Any, kept: Kept) -> None:
    (one, one_entry), (two, two_entry) = (new_key(name, ("read", "feedback")) for name in ("one", "two"))
    keys = {"keys": [one_entry.model_dump(), two_entry.model_dump()]}
    async with bent(events=kept.settings | {"quota": 3}, serving=keys) as api:
        as_one, as_two = ({"authorization": f"Bearer {key}"} for key in (one, two))
        answer = (await api.post("/v1/search", {"text": "x", "k": 3}, headers=as_one)).json()
        body = {"token": answer["feedback_token"], "liked": [item["id"] for item in answer["items"]]}
        statuses = [(await api.post("/v1/feedback", body, headers=headers)).status_code for headers in (as_one, as_one, as_two)]
        events = await kept(api)
    assert statuses == [202, 429, 202]
    assert [(event["event"], event["key"]) for event in events] == [("impression", "one"), *[("liked", "one")] * 3, *[("liked", "two")] * 3]


@pytest.mark.parametrize(("peer", "serving"), [("127.0.0.1", {}), ("10.1.2.3", {"haproxy": True})])
async def test_a_client_of_no_known_address_uses_up_no_quota_but_its_answers(bent: Any, kept: Kept, peer: str, serving: Any) -> None:
    """Behind HAProxy without trusted proxies all clients have its address, and none has its own."""
    async with bent(events=kept.settings | {"quota": 2}, serving=serving) as api:
        api.client._transport.client = (peer, 1)
        greedy, other = [await searched(api) for _ in range(2)]
        send = [{"token": token, "liked": ids} for ids, token in (greedy, greedy, other)]
        assert [(await api.post("/v1/feedback", body)).status_code for body in send] == [202, 429, 202]


async def test_clients_of_known_addresses_have_a_quota_each_for_all_their_answers(bent: Any, kept: Kept) -> None:
    async with bent(events=kept.settings | {"quota": 2}) as api:
        statuses = []
        for peer in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
            api.client._transport.client = (peer, 1)
            ids, token = await searched(api)
            statuses.append((await api.post("/v1/feedback", {"token": token, "liked": ids})).status_code)
        assert statuses == [202, 429, 202]


async def test_a_read_key_sends_no_feedback(bent: Any, kept: Kept) -> None:
    reader, entry = new_key("reader", ("read",))
    headers = {"authorization": f"Bearer {reader}"}
    async with bent(events=kept.settings, serving={"keys": [entry.model_dump()]}) as api:
        answer = (await api.post("/v1/search", {"text": "x", "k": 1}, headers=headers)).json()
        body = {"token": answer["feedback_token"], "liked": [answer["items"][0]["id"]]}
        assert error(await api.post("/v1/feedback", body, headers=headers)) == (403, "forbidden")


async def test_texts_are_kept_where_the_settings_say_so(bent: Any, kept: Kept) -> None:
    async with bent(events=kept.settings, serving={"log_texts": True}) as api:
        await api.post("/v1/search", {"text": "a secret wish"})
        await api.post("/v1/recommend", {"text": "another"})
        await api.post("/v1/recommend", {})
        events = await kept(api)
    assert [event.get("text") for event in events] == ["a secret wish", "another", None]


async def test_without_a_log_feedback_is_refused_and_answers_are_not(bent: Any) -> None:
    async with bent() as api:
        assert error(await api.post("/v1/feedback", {"token": "x", "liked": ["x"]})) == (404, "events_off")
        answer = await api.post("/v1/search", {"text": "x", "user_id": "u"})
        assert answer.status_code == 200
        assert "feedback_token" not in answer.json()


async def test_a_full_log_refuses_feedback_and_still_answers(bent: Any, kept: Kept) -> None:
    async with bent(events=kept.settings | {"max_waiting": 2, "flush_events": 2}) as api:
        ids, token = await searched(api)
        assert error(await api.post("/v1/feedback", {"token": token, "liked": ids})) == (503, "overloaded")
        lost = counted(api, "matinee_events_dropped")
        assert (await api.post("/v1/search", {"text": "x"})).status_code == 200
        assert len(await kept(api)) == 2
    assert lost == {"full": 2}


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
    assert error(await api.post("/v1/feedback", {"token": "x", **body})) == (422, "invalid")
