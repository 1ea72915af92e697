"""Engine `openai` against a small real HTTP server that is slow, refuses or answers nonsense. A real llama.cpp: `test_llama_cpp.py`."""

import json
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from matinee.errors import ModelError, ModelServerError
from matinee.items import Item
from matinee.models.descriptions import Descriptions
from matinee.models.enhancer import Enhancer
from matinee.models.fetch import fetch_models
from matinee.settings.models import EmbedderSettings, EnhancerSettings
from matinee.settings.tree import Settings
from tests.model_server import GOOD, ModelServer, serving
from tests.waiting import HANG_S, until

FILM = Item(
    kind="film", title="Tenet", year=2020, genres=("Thriller",), overview="An agent fights for the survival of the world through time."
)
KEY = "sk-never-to-be-seen"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as server:
        yield server


def load(server: ModelServer, failures: Counter[str] | None = None, **settings: Any) -> Enhancer:
    counted = Counter() if failures is None else failures
    count = lambda reason: counted.update([reason])  # noqa: E731
    return Enhancer.load(EnhancerSettings(**server.settings(**settings)), Path("nowhere"), count_failure=count)


def test_a_base_model_continues_the_form_and_its_answer_is_checked(server: ModelServer) -> None:
    enhancer = load(server, max_new_tokens=48)
    (told,) = enhancer.describe([FILM])
    assert told.text == "Tenet (2020) is a thriller film about an agent who fights for the survival of the world."
    assert (told.source, told.tokens, told.model) == ("model", 7, "gemma")
    path, body, key = server.asked[-1]
    assert (path, body["model"], body["max_tokens"], body["temperature"], body["stop"], key) == (
        "/v1/completions",
        "gemma",
        48,
        0,
        ["\n"],
        None,
    )
    # The prompt of a base model of engine `local`: worked examples, and the first words of the answer.
    assert body["prompt"].count("Title:") == 3
    assert body["prompt"].endswith("Tenet (2020) is a thriller film about")
    server.answer = f"{GOOD} It was directed by Steven Spielberg."
    (told,) = load(server, retries=1).describe([FILM])
    assert (told.attempts, told.marked, "Spielberg" in told.text) == (2, True, False)
    assert (server.asked[-1][1]["seed"], server.asked[-1][1]["temperature"]) == (1, 0.7)


def test_an_adapter_is_asked_for_by_its_name_and_without_examples(server: ModelServer) -> None:
    enhancer = load(server, adapter="films")
    assert enhancer.describe([FILM])[0].source == "model"
    _, body, _ = server.asked[-1]
    assert (body["model"], body["prompt"].count("Title:")) == ("films", 1)
    assert enhancer.info()["prompt"] == "form"


def test_a_chat_model_is_asked_in_a_turn(server: ModelServer) -> None:
    server.answer = "Tenet is a thriller film about an agent who fights for the survival of the world."
    enhancer = load(server, chat=True)
    assert enhancer.describe([FILM])[0].text == server.answer
    path, body, _ = server.asked[-1]
    [turn] = body["messages"]
    assert (path, turn["role"], "stop" in body) == ("/v1/chat/completions", "user", False)
    assert "Title: Tenet" in turn["content"]


def test_what_decides_the_words_decides_the_digests(server: ModelServer) -> None:
    def known(**settings: Any) -> tuple[Any, ...]:
        enhancer = load(server, **settings)
        info = enhancer.info()
        return info["digest"], info["adapter_digest"], info["prompt_digest"], enhancer.name

    base = known()
    assert base == known(timeout_s=1, server_retries=0, api_key=SecretStr("k"), batch_size=2), "how it is asked changes nothing"
    others = [known(revision="2"), known(adapter="films"), known(chat=True), known(model="films")]
    assert len({base, *others}) == 5
    assert known(revision="2")[3] != base[3], "gateways forget what the weights before wrote"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (503, "refused"),
        (429, "refused"),
        (500, "refused"),
        (b"<html>welcome</html>", "nonsense"),
        (b"[" * 200_000, "nonsense"),
        (b'{"choices": []}', "nonsense"),
        (b'{"choices": [{"text": null}]}', "nonsense"),
        (b'"text"', "nonsense"),
        (b"null", "nonsense"),
        (b" " * 5_000_000, "nonsense"),
        (lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), "unreachable"),
        (lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"), "timeout"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_passing_failure_is_counted_and_asked_again(server: ModelServer, bad: Any, reason: str) -> None:
    failures: Counter[str] = Counter()
    enhancer = load(server, failures, timeout_s=0.3 if reason == "timeout" else 30)
    server.turns.extend([bad, bad])
    assert enhancer.describe([FILM])[0].source == "model"
    assert failures == {reason: 2}
    assert enhancer.trouble is None


def test_tries_are_bounded_and_the_last_error_is_explained(server: ModelServer) -> None:
    failures: Counter[str] = Counter()
    enhancer = load(server, failures, server_retries=1)
    server.turns.extend([503] * 9)
    with pytest.raises(ModelServerError, match=r"127\.0\.0\.1.*refused \(status 503.*because 503") as caught:
        enhancer.describe([FILM])
    assert (caught.value.code, failures["refused"], len(server.prompts)) == ("unavailable", 2, 2)
    assert "status 503" in str(enhancer.trouble)


def test_retry_after_is_kept(server: ModelServer) -> None:
    enhancer = load(server)
    server.turns.append(lambda handler: handler.reply(429, b"{}", Retry_After="1"))
    began = time.monotonic()
    assert enhancer.describe([FILM])[0].source == "model"
    assert time.monotonic() - began >= 1


def test_a_prompt_that_is_rejected_costs_its_item_alone(server: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    failures: Counter[str] = Counter()
    enhancer = load(server, failures, batch_size=1)
    server.turns.append(400)
    films = [FILM, FILM.model_copy(update={"title": "Heat", "year": 1995, "overview": FILM.overview + " Again and again."})]
    told = enhancer.describe(films)
    assert [description.source for description in told] == ["template", "model"]
    assert (failures, len(server.prompts)) == ({"rejected": 1}, 2)
    assert "no, because 400" in caplog.text


def test_the_deadline_ends_a_slow_answer_and_the_facts_speak(server: ModelServer) -> None:
    enhancer = load(server)
    server.hold = threading.Event()
    began = time.monotonic()
    (told,) = enhancer.describe([FILM], deadline=began + 0.3)
    assert told.source == "template"
    assert time.monotonic() - began < HANG_S / 10, "not the whole of timeout_s times its tries"


def test_a_server_that_drips_is_late_as_a_whole(server: ModelServer) -> None:
    stop = threading.Event()

    def drip(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not stop.wait(0.05):
            handler.wfile.write(b" ")

    failures: Counter[str] = Counter()
    enhancer = load(server, failures, timeout_s=0.4, server_retries=0)
    server.turns.append(drip)
    try:
        with pytest.raises(ModelServerError, match="timeout"):
            enhancer.describe([FILM])
    finally:
        stop.set()
    assert failures == {"timeout": 1}


def test_requests_under_way_are_bounded_and_none_waits_for_a_batch(server: ModelServer) -> None:
    enhancer = load(server, batch_size=3)
    films = [FILM.model_copy(update={"title": f"Film {n}"}) for n in range(9)]
    server.hold = threading.Event()
    describing = threading.Thread(target=lambda: told.extend(enhancer.describe(films)))
    told: list[Any] = []
    describing.start()
    until(lambda: server.under_way == 3, "three are asked at once")
    server.hold.set()
    describing.join(HANG_S)
    assert [description.text.split(" (")[0] for description in told] == [film.title for film in films]
    assert (server.most_under_way, len(server.prompts)) == (3, 9)


def test_an_outage_in_bulk_stops_what_was_not_begun(server: ModelServer) -> None:
    enhancer = load(server, batch_size=1, server_retries=0)
    server.turns.extend([503] * 99)
    with pytest.raises(ModelServerError):
        enhancer.describe([FILM.model_copy(update={"title": f"Film {n}"}) for n in range(50)])
    assert len(server.prompts) <= 2


def test_bulk_keeps_what_was_written_and_goes_on_after_an_outage(server: ModelServer, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, enhancer=EnhancerSettings(**server.settings(batch_size=1, server_retries=0)))
    films = [FILM.model_copy(update={"title": f"Film {n}", "year": 2000}) for n in range(12)]
    written = threading.Event()

    def fail(handler: Any) -> None:
        written.set()
        handler.reply(503, b"{}")

    # The ninth is of the second round: what the first wrote is kept.
    server.turns.extend([json.dumps({"choices": [{"text": GOOD}]}).encode()] * 8 + [fail])
    with pytest.raises(ModelServerError):
        Descriptions(settings).write(films)
    assert written.is_set()
    before = len(server.prompts)
    assert all("survival" in str(text) for text in Descriptions(settings).write(films))
    assert len(server.prompts) - before == 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "other"}, r"has no model 'other' \(enhancer\.model\); it has gemma, films"),
        ({"adapter": "other"}, r"has no model 'other' \(enhancer\.adapter\)"),
    ],
)
def test_a_name_that_the_server_does_not_have_is_refused_at_start(server: ModelServer, settings: dict[str, str], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load(server, **settings)


def test_a_wrong_base_url_is_refused_at_start(server: ModelServer) -> None:
    server.url = server.url.removesuffix("/v1")
    with pytest.raises(ModelError, match="mostly ending in /v1"):
        load(server)


def test_a_model_that_can_not_continue_is_refused_at_start(server: ModelServer) -> None:
    def no_completions(handler: Any) -> None:
        handler.reply(400, b'{"error": "this model has no chat template"}')

    server.take = lambda path, body, key: no_completions if path != "/v1/models" else None  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"no chat template.*check enhancer\.chat"):
        load(server, chat=True)


def test_a_server_that_starts_later_is_waited_for_and_checked_then(server: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    server.down = 2
    enhancer = load(server, server_retries=0)
    assert "asked again when it is needed" in caplog.text
    assert "status 503" in str(enhancer.trouble)
    with pytest.raises(ModelServerError):
        enhancer.describe([FILM])
    assert enhancer.describe([FILM])[0].source == "model"
    # Checked once it is there, and then no more.
    enhancer.describe([FILM])
    assert [path for path, *_ in server.asked].count("/v1/models") == 3


def test_the_key_is_sent_and_seen_nowhere(server: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    enhancer = load(server, api_key=SecretStr(KEY))
    enhancer.describe([FILM])
    assert {key for *_, key in server.asked} == {f"Bearer {KEY}"}
    server.turns.append(lambda handler: handler.reply(401, f"Incorrect API key provided: {KEY}".encode()))
    with pytest.raises(ModelError, match=r"refused the key.*MATINEE_ENHANCER__API_KEY") as caught:
        enhancer.describe([FILM])
    server.turns.extend([f"{KEY} is no JSON".encode()] * 3)
    with pytest.raises(ModelServerError) as nonsense:
        enhancer.describe([FILM])
    settings = EnhancerSettings(**server.settings(api_key=SecretStr(KEY)))
    seen = [str(caught.value), str(nonsense.value), str(enhancer.trouble), caplog.text, repr(settings), settings.model_dump_json()]
    assert not [text for text in [*seen, str(enhancer.info())] if KEY in text]
    with pytest.raises(ModelError, match="characters that no key has"):
        load(server, api_key=SecretStr("schlüssel"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine": "openai", "model": "gemma"}, "needs the url of a server"),
        ({"engine": "openai", "url": "http://vllm:8000/v1"}, "is not a model name of the server"),
        (
            {"engine": "openai", "url": "http://vllm:8000/v1", "model": "gemma", "adapter": "artifact:ab"},
            "is not a model name of the server",
        ),
        ({"engine": "openai", "url": "http://vllm:8000/v1", "model": "gemma", "precision": "bf16"}, "set precision to auto"),
        ({"engine": "openai", "url": "http://vllm:8000/v1", "model": "gemma", "deployment": {"num_gpus": 0.5}}, "set it to 0"),
        ({"engine": "openai", "url": "http://user:word@vllm:8000/v1", "model": "gemma"}, "url"),
        ({"url": "http://vllm:8000/v1"}, "engine 'local' does not use url and chat"),
        ({"chat": True}, "engine 'local' does not use url and chat"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        EnhancerSettings.model_validate(settings)


def test_no_weights_are_fetched_for_it(server: ModelServer, tmp_path: Path, tiny_base: Path) -> None:
    enhancer = EnhancerSettings(**server.settings())
    # Any folder of weights will do for the embedder.
    fetch_models(Settings(home=tmp_path, embedder=EmbedderSettings(model=str(tiny_base)), enhancer=enhancer), print, converted=True)
