"""`train.ingest --via api`: the index that a server's own models build is the one that local models build, whatever comes between."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from matinee.client import calls
from matinee.client.calls import Call
from matinee.client.http import Client, ServerError
from matinee.client.models import MAX_TEXTS, RemoteEmbedder, RemoteEnhancer, RetryPolicy, connect
from matinee.errors import FingerprintError, IndexUnavailableError, ModelError
from matinee.index.factory import open_store
from matinee.index.types import Hit, Scroll
from matinee.items import Item
from matinee.settings.tree import Settings
from serve.graph import messages
from serve.graph.gateway import Gateway
from train.ingest import app

FILMS = 150
KEPT = Item(id="kept", kind="film", title="The Paper Astronomer", year=2033, overview="An astronomer folds the sky out of paper.")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from matinee import demo

    path = tmp_path_factory.mktemp("films") / "films.jsonl"
    rows = [json.loads(line) for line in demo.FILMS.read_text(encoding="utf-8").splitlines()[:FILMS]]
    # Short texts: encoding is most of the time of these tests.
    path.write_text("".join(json.dumps(row | {"overview": row["overview"][:40]}) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass
class Outage:
    """Which calls do not reach the server's index."""

    hits: Callable[[Any], bool] = lambda _: False

    @asynccontextmanager
    async def around(self, graph: Any) -> AsyncIterator[Gateway]:
        async with graph as service:
            retriever = service.graph.retriever

            async def reached(unit: Any, deadline: float) -> Any:
                if self.hits(unit):
                    raise IndexUnavailableError("no answer from http://qdrant:6333")
                return await retriever(unit, deadline)

            service.graph = replace(service.graph, retriever=reached)
            yield service


@pytest.fixture(scope="module")
def lasting() -> Outage:
    return Outage()


@pytest.fixture
def outage(lasting: Outage) -> Iterator[Outage]:
    yield lasting
    lasting.hits = Outage().hits


@pytest.fixture(scope="module")
def url(local_graph: Any, tmp_path_factory: pytest.TempPathFactory, lasting: Outage) -> Iterator[str]:
    """A server with a fake enhancer, whose index holds five films and one item that the API wrote."""
    home = tmp_path_factory.mktemp("server")
    films = local_graph.demo_films()[:5]
    with local_graph.serve_app(
        lambda: lasting.around(local_graph.build_local_graph(home, films=films, enhancer=local_graph.FakeEnhancer()))
    ) as url:
        call: Call[Any] = Call("PUT", "/v1/items", body={"items": [KEPT.model_dump(mode="json", exclude_defaults=True)]})
        put = Client(url).send(call)
        assert put["items"]
        yield url


@pytest.fixture
def settings(local_graph: Any, tmp_path: Path) -> Settings:
    """A home of its own: the index is built beside the server's."""
    made: Settings = local_graph.local_settings(tmp_path)
    return made


@pytest.fixture
def run(settings: Settings, films: Path, url: str) -> Any:
    """`train.ingest FILMS --via api` in this process."""

    def run(*arguments: str, **more: str) -> Any:
        env = {"MATINEE_HOME": str(settings.home), "MATINEE_URL": url, **more}
        words = [str(films), "--kind", "film", "--via", "api", "--patience", "0", "--rejects", str(settings.home), *arguments]
        return CliRunner().invoke(app, words, env=env)

    return run


def points(settings: Settings) -> dict[str, Hit]:
    async def read() -> dict[str, Hit]:
        store = open_store(settings)
        current = await store.current()
        assert current is not None
        index = await store.open(current.version)
        try:
            page, _ = await index.scroll(Scroll(limit=1000, vectors=True))
            return {hit.id: hit for hit in page}
        finally:
            await index.close()

    return asyncio.run(read())


def vector_files(settings: Settings) -> list[Path]:
    return list((settings.home_dir / "ingest").glob("*.sqlite"))


def test_the_index_is_the_one_that_local_models_build(run: Any, settings: Settings, local_graph: Any) -> None:
    done = run()
    assert done.exit_code == 0, done.output
    found = points(settings)
    assert len(found) == FILMS + 1
    kept = found[KEPT.uid("demo")]
    assert (kept.payload["origin"], {hit.payload["origin"] for hit in found.values()}) == ("api", {"file", "api"})
    embedder = local_graph.embedder_replica().slot.model
    from matinee.text.templates import embedded_text

    for hit in list(found.values())[:5]:
        [vector] = embedder.encode([embedded_text(Item.model_validate(hit.payload["item"]), None, "raw")], kind="document")
        assert hit.vector == pytest.approx(vector, abs=1e-5)
    assert len(vector_files(settings)) == 1, "for the next ingest"


def test_a_stopped_run_goes_on_where_it_was(run: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    send, broken = Client.send, True

    def flaky(self: Client, call: Call[Any]) -> Any:
        if call.path != "/v1/embed":
            return send(self, call)
        if broken and asked:
            raise ServerError("the queue is full", "overloaded")
        assert call.body is not None
        asked.append(len(call.body["texts"]))  # type: ignore[arg-type]
        return send(self, call)

    monkeypatch.setattr(Client, "send", flaky)
    stopped = run()
    assert stopped.exit_code == 7
    assert "embedding" in stopped.output
    assert "the queue is full" in stopped.output
    assert (len(vector_files(settings)), asked) == (1, [MAX_TEXTS])
    broken = False
    done = run()
    assert done.exit_code == 0, done.output
    assert asked[1:] == [FILMS - MAX_TEXTS, 1]
    assert len(points(settings)) == FILMS + 1


def test_what_the_api_wrote_is_not_lost_where_the_servers_index_is_out_of_reach(run: Any, settings: Settings, outage: Outage) -> None:
    outage.hits = lambda _: True
    done = run()
    assert done.exit_code == 5
    assert "reading what was written through" in done.output
    assert "no answer from http://qdrant:6333" in done.output
    assert not list(settings.index_dir.rglob("CURRENT"))


def test_an_index_that_comes_back_is_waited_for(run: Any, settings: Settings, outage: Outage) -> None:
    left = [True]
    outage.hits = lambda unit: isinstance(unit, messages.Page) and bool(left and left.pop())
    done = run("--patience", "60")
    assert done.exit_code == 0, done.output
    assert left == []
    assert [hit.payload["title"] for hit in points(settings).values() if hit.payload["origin"] == "api"] == [KEPT.title]


def test_a_replaced_embedder_stops_it(url: str, settings: Settings) -> None:
    server = Client(url)
    embedder = RemoteEmbedder(server, connect(server, settings, RetryPolicy(0)), settings, RetryPolicy(0))
    embedder.fingerprint = "another"
    with pytest.raises(FingerprintError, match="was replaced"):
        embedder.encode(["a text"])


def test_another_language_or_catalogue_is_refused(url: str, settings: Settings) -> None:
    server = Client(url)
    info = connect(server, settings, RetryPolicy(0))
    french = settings.model_copy(update={"embedder": settings.embedder.model_copy(update={"language": "french"})})
    with pytest.raises(ModelError, match="set it alike"):
        RemoteEmbedder(server, info, french, RetryPolicy(0))
    with pytest.raises(ServerError, match="serves the catalogue 'demo', not 'books'"):
        connect(server, settings.model_copy(update={"catalogue": "books"}), RetryPolicy(0))


def test_without_a_server_it_says_how_to_name_one(run: Any) -> None:
    done = run(MATINEE_URL="")
    assert done.exit_code == 2
    assert "--url" in done.output
    nobody = run("--url", "http://127.0.0.1:9")
    assert nobody.exit_code == 5
    assert "reaching http://127.0.0.1:9: gave up" in nobody.output


def test_descriptions_come_from_the_server_too(url: str, settings: Settings) -> None:
    server = Client(url)
    info = connect(server, settings, RetryPolicy(0))
    with pytest.raises(ServerError, match="its enhancer can't be asked"):
        RemoteEnhancer(server, info | {"enhancer": None}, RetryPolicy(0))
    enhancer = RemoteEnhancer(server, info | {"enhancer": {"digest": "d" * 64}}, RetryPolicy(0))
    assert [d.text for d in enhancer.describe([KEPT, KEPT.model_copy(update={"title": "B"})])] == [
        "The Paper Astronomer, in other words.",
        "B, in other words.",
    ]


def test_embedding_is_bounded(url: str) -> None:
    server = Client(url)
    for body in ({"texts": []}, {"texts": ["a"] * (MAX_TEXTS + 1)}, {"texts": [""]}, {"texts": ["a"], "kind": "other"}):
        with pytest.raises(ServerError) as refused:
            server.send(Call("POST", "/v1/embed", body=body))
        assert refused.value.code == "invalid"
    assert np.linalg.norm(server.send(calls.embed(["a"], "document"))["vectors"][0]) == pytest.approx(1, abs=1e-5)


class Clock:
    """Time that passes only while somebody sleeps."""

    now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_patience_asks_again_what_is_passing_and_only_that(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("tenacity.time", SimpleNamespace(monotonic=lambda: clock.now))
    answers = [ServerError("full", "overloaded"), ServerError("gone"), "here"]

    def ask() -> str:
        answer = answers.pop(0)
        if isinstance(answer, ServerError):
            raise answer
        return str(answer)

    patience = RetryPolicy(60, clock.sleep)
    assert patience("asking", ask) == "here"
    assert 0.5 <= clock.now <= 1.5
    answers[:] = [ServerError("no such key", "unauthorized"), "never"]
    with pytest.raises(ServerError, match="asking: no such key"):
        patience("asking", ask)
    assert caplog.messages == [], "a moment is no news"
    answers[:] = [ServerError("full", "overloaded")] * 100
    with pytest.raises(ServerError, match=r"gave up after \d+ s of asking: full"):
        patience("asking", ask)
    assert "asking: full; again in" in caplog.messages[0]
    assert 30 <= clock.now <= 63
