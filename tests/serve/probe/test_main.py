"""The probe against the real graph behind a real socket: what users would get when the index degrades, exit codes, the process itself."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from matinee.index.edge.index import EdgeIndex
from matinee.index.types import DenseQuery, Hit
from serve.api.auth import new_key
from serve.probe import queries
from serve.probe.__main__ import app
from tests.waiting import HANG_S

ROOT = Path(__file__).parents[3]
ADMIN, ADMIN_ENTRY = new_key("admin", ("admin",))
READER, READER_ENTRY = new_key("reader", ("read",))
Run = Callable[..., Any]
QUERIES = 20


@dataclass
class Served:
    """A server with keys over the films of the shipped queries and some more; caches off, so that a swap of the embedder shows at once."""

    url: str
    service: Any
    films: list[Any]

    def put(self, *films: Any) -> None:
        for start in range(0, len(films), 100):
            items = [film.model_dump(mode="json") for film in films[start : start + 100]]
            headers = {"authorization": f"Bearer {ADMIN}"}
            httpx.put(f"{self.url}/v1/items", json={"items": items}, headers=headers, timeout=HANG_S).raise_for_status()


@pytest.fixture(scope="module")
def served(local_graph: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    everything, asked = (set().union(*queries.for_catalogue(None, "demo", most)[0].relevant.values()) for most in (1000, QUERIES))
    bundled = local_graph.demo_films()
    films = [film for i, film in enumerate(bundled) if film.id in everything or i % 10 == 0]
    keys = [entry.model_dump() for entry in (ADMIN_ENTRY, READER_ENTRY)]
    settings = local_graph.local_settings(tmp_path_factory.mktemp("home"), serving={"keys": keys})
    settings = settings.model_copy(update={"embedder": settings.embedder.model_copy(update={"cache_entries": 0})})
    found: list[Any] = []

    @local_graph.asynccontextmanager
    async def graph() -> Any:
        async with local_graph.build_local_graph(settings.home_dir, films=films, settings=settings) as service:
            found.append(service)
            yield service

    with local_graph.serve_app(graph) as url:
        yield Served(url, found[0], [film for film in films if film.id in asked])


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`python -m serve.probe --once ...`: its exit code, and all that it printed in one line of single blanks."""
    monkeypatch.setenv("MATINEE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")

    def run(url: str, *arguments: str, key: str | None = ADMIN, **settings: str) -> tuple[int, str]:
        settings = {"MAX_QUERIES": str(QUERIES), "DEADLINE_S": "60"} | settings
        environ = {f"MATINEE_PROBE__{name}": value for name, value in settings.items()}
        environ |= {"MATINEE_PROBE__KEY": key} if key else {}
        done = CliRunner().invoke(app, ["--once", "--url", url, *arguments], env=environ, catch_exceptions=False)
        return done.exit_code, " ".join(done.output.split())

    return run


def recall(output: str, mode: str) -> float:
    found = re.search(rf"demo │ {mode}\*? │ {QUERIES} │ (\d\.\d+)", output)
    assert found, output
    return float(found[1])


def write_set(folder: Path, text: str, *items: str) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "1", "text": text}) + "\n")
    lines = [f"1\t{item}\t1" for item in items]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines, ""]))
    return folder


def test_a_canary_passes_and_fails_by_the_recall_of_the_mode_that_serves(served: Served, once: Run, tmp_path: Path) -> None:
    code, output = once(served.url, "--min-recall", "0.9")
    assert code == 0, output
    assert recall(output, "sparse") < recall(output, "hybrid")
    assert re.search(r"not in the index │ 0 of \d+ items", output)
    assert "approximate" not in output, "this index is exact"
    code, output = once(
        served.url, "--min-recall", "1", "--queries", str(write_set(tmp_path / "off", "a clownfish looks for his son", "psycho-1960"))
    )
    assert (code, "set off, hybrid: Recall@10 0.000 is below --min-recall 1" in output) == (1, True)


def test_overviews_that_are_lost_lower_the_figure_until_they_are_back(served: Served, once: Run) -> None:
    before = recall(once(served.url)[1], "hybrid")
    try:
        served.put(*(film.model_copy(update={"overview": ""}) for film in served.films))
        code, output = once(served.url, "--min-recall", f"{before - 0.1}")
        assert code == 1
        assert recall(output, "hybrid") < before - 0.1
        assert "set demo, hybrid: Recall@10" in output
        assert "is below --min-recall" in output
    finally:
        served.put(*served.films)
    assert once(served.url, "--min-recall", f"{before}")[0] == 0


def test_broken_query_vectors_lower_dense_recall_and_leave_the_words_alone(served: Served, once: Run) -> None:
    graph, good = served.service.graph, once(served.url)[1]

    async def broken(unit: Any, deadline: float) -> Any:
        made = await graph.embedder(unit, deadline)
        return replace(made, vectors=-made.vectors)

    served.service.graph = replace(graph, embedder=broken)
    try:
        bad = once(served.url)[1]
    finally:
        served.service.graph = graph
    assert recall(bad, "dense") < 0.2 < recall(good, "dense")
    assert recall(bad, "sparse") == recall(good, "sparse")
    assert recall(once(served.url)[1], "dense") == recall(good, "dense")


def test_an_index_that_answers_approximately_is_held_against_exact_search(
    served: Served, once: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    exactly = EdgeIndex._search

    def lossy(self: EdgeIndex, searches: Any) -> list[list[Hit]]:
        lost = [isinstance(search.query, DenseQuery) and not search.exact for search in searches]
        return [hits[::2] if less else hits for hits, less in zip(exactly(self, searches), lost, strict=True)]

    monkeypatch.setattr(EdgeIndex, "_search", lossy)
    monkeypatch.setattr(EdgeIndex, "approximate", True)
    code, output = once(served.url, ANN_QUERIES="5")
    assert code == 0, output
    assert "approximate │ unfiltered │ │ 0.500" in output
    assert "approximate │ filtered │ │ 0.500" in output
    code, output = once(served.url, key=READER)
    assert code == 0, "the key may see all that has figures"
    assert "403 forbidden" in output
    assert recall(output, "hybrid") > 0.5, "what the key may see is shown"


@pytest.mark.parametrize("key", [None, "mat_wrong"])
def test_a_missing_or_wrong_key(served: Served, once: Run, key: str | None) -> None:
    code, output = once(served.url, key=key)
    assert code == 2
    assert "401 unauthorized" in output
    assert "mat_wrong" not in output


def test_a_set_of_ones_own_and_its_unknown_items(served: Served, once: Run, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "mine", "a heist inside dreams", "inception-2010", "no-such-film")
    code, output = once(served.url, "--queries", str(folder), "--max-unknown", "0.5", "--min-recall", "1")
    assert code == 0, output
    assert "1 of 2 items" in output
    code, output = once(served.url, "--queries", str(folder))
    assert code == 1
    assert "set mine: 1 of its 2 items are not in the index, more than --max-unknown 0.1 allows" in output


def test_no_query_set(local_graph: Any, once: Run, tmp_path: Path) -> None:
    settings = local_graph.local_settings(tmp_path / "other", catalogue="films")
    with local_graph.serve_app(
        lambda: local_graph.build_local_graph(tmp_path / "other", films=local_graph.demo_films()[:3], settings=settings)
    ) as url:
        code, output = once(url)
        assert (code, "no query set" in output) == (0, True)
        code, output = once(url, "--min-recall", "0.5")
        assert code == 2
        assert "set probe.queries" in output


# without a server of ours


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>hello</html>", "not as a Matinee server does"),
        (200, b'{"hello": 1}', "check probe.url"),
        (503, b'{"code": "index_unavailable", "message": "Qdrant is away"}', "503 index_unavailable: Qdrant is away"),
    ],
)
def test_servers_that_are_of_no_use(once: Run, status: int, body: bytes, message: str) -> None:
    with answering(status, body) as url:
        code, output = once(url)
    assert code == 2
    assert message in output


def test_a_server_that_is_down_or_never_answers(once: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        code, output = once(url)
        assert code == 2
        assert "does not answer (ConnectError)" in output
        taken.listen()
        code, output = once(url, DEADLINE_S="0.2")
        assert code == 2
        assert "no answer within 0.2 s (probe.deadline_s)" in output


@pytest.mark.parametrize(
    ("arguments", "key", "message"),
    [
        (["--once", "--url", "http://host:port"], "k", "is not the URL of a server"),
        (["--once", "--url", "ftp://127.0.0.1"], "k", "is not the URL of a server"),
        (["--once", "--url", "http://127.0.0.1"], "schlüssel", "copy it again"),
        (["--min-recall", "0.5"], "k", "add --once"),
        (["--once", "--queries", "/nowhere"], "k", "should be a BEIR folder"),
    ],
)
def test_settings_that_can_not_work(arguments: list[str], key: str, message: str, tmp_path: Path) -> None:
    environ = {"MATINEE_PROBE__KEY": key, "MATINEE_HOME": str(tmp_path)}
    done = CliRunner().invoke(app, arguments, env=environ, catch_exceptions=False)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert "schlüssel" not in done.output


def test_the_process_exports_its_rounds_and_ends_on_a_signal(served: Served, tmp_path: Path) -> None:
    environ = {
        "MATINEE_HOME": str(tmp_path),
        "MATINEE_PROBE__KEY": READER,
        "PATH": "",
        "MATINEE_PROBE__MAX_QUERIES": str(QUERIES),
        "MATINEE_PROBE__DEADLINE_S": "60",
    }
    command = [sys.executable, "-m", "serve.probe", "--url", served.url, "--metrics-port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        address = next(found[1] for line in process.stderr if (found := re.search(r"metrics on (http\S+)", line)))
        assert any("demo hybrid recall@10" in line for line in process.stderr), "the round's line in the log"
        text = httpx.get(address).text
        said = tmp_path / "probe.json"
        assert json.loads(said.read_text()) == {"url": served.url, "pid": process.pid, "metrics": address}
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert (process.wait(HANG_S), rest, said.exists()) == (0, "", False)
    values = dict(re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE))
    assert float(values['matinee_probe_recall_at_10{mode="hybrid",set="demo"}']) > 0.9
    assert float(values['matinee_probe_queries{set="demo"}']) == QUERIES
    assert float(values["matinee_probe_index_age_seconds"]) > 0
    assert float(values["matinee_probe_rounds_total"]) == 1
    assert READER not in text
