"""`train.ingest` as its user meets it: small files, broken rows, locks, a kill, and a server beside it.

In this process, which has the models' libraries loaded, wherever a test is not about processes.
"""

import asyncio
import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from typer.testing import CliRunner, Result

from matinee.client.calls import Call
from matinee.client.http import Client
from matinee.errors import CatalogueConflictError
from matinee.index.active import ActiveIndex
from matinee.index.catalogues import create_catalogue, remove_catalogue
from matinee.index.factory import open_store
from matinee.index.registry import CatalogueRecord
from matinee.index.types import Scroll
from matinee.items import Item
from matinee.models.embedder import Embedder
from matinee.models.types import Kind
from matinee.settings.tree import Settings
from matinee.vectors import Matrix
from tests.waiting import HANG_S, until
from train import ingest as train_ingest
from train.ingest import IngestOptions, app, newer_release
from train.jobs.command import console

ROWS = [
    ("Heat", "1995", "Crime|Drama", "A detective hunts a crew of careful thieves."),
    ("Alien", "1979", "Horror", "A crew meets something in the dark of space."),
    ("Amélie", "2001", "Comedy|Romance", "A waitress mends the lives around her."),
    ("[/Rec]", "2007", "Horror", "A reporter is locked into a house."),
]
BROKEN = [("", "1990", "Drama", "A film without a title."), ("Nowhere", "not a year", "Drama", "A film out of time.")]


def write(path: Path, rows: list[tuple[str, ...]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("title", "year", "genres", "overview"), *rows])
    return path


def environ(home: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MATINEE_")}
    return inherited | {"MATINEE_HOME": str(home), "MATINEE_EMBEDDER__PRECISION": "fp32", "COLUMNS": "200", **more}


def ingest(home: Path, *args: Any, **more: str) -> Result:
    env: dict[str, str | None] = dict.fromkeys(name for name in os.environ if name.startswith("MATINEE_"))
    env |= {"MATINEE_HOME": str(home), "MATINEE_EMBEDDER__PRECISION": "fp32", "MATINEE_EMBEDDER__THREADS": "1", **more}
    return CliRunner().invoke(app, [*map(str, args), "--rejects", str(home)], env=env)


@pytest.fixture(autouse=True)
def _as_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A wide terminal, and the usual mode of files, which the job changes for its process."""
    monkeypatch.setattr(console, "width", 200)
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def settings(local_graph: Any, tmp_path: Path) -> Settings:
    made: Settings = local_graph.local_settings(tmp_path)
    return made


def held(settings: Settings, work: Callable[[ActiveIndex], Any] | None = None) -> Any:
    """Payloads by id of the current version; `work` is done while this process holds it."""

    async def run() -> Any:
        active = ActiveIndex(open_store(settings))
        try:
            await active.refresh()
            if work is not None:
                return await asyncio.to_thread(work, active)
            page, _ = await active.get().scroll(Scroll(limit=1000, deleted=True))
            return {hit.id: hit.payload for hit in page}
        finally:
            await active.close()

    return asyncio.run(run())


def refused(done: Result, exit_code: int, *said: str) -> None:
    assert done.exit_code == exit_code, done.stderr
    assert isinstance(done.exception, SystemExit)
    assert done.stdout == ""
    for part in ("error: ", *said):
        assert part in done.stderr


def test_broken_rows_are_rejected_and_the_rest_is_searchable(settings: Settings, tmp_path: Path) -> None:
    done = ingest(tmp_path, write(tmp_path / "films.csv", [*ROWS, *BROKEN, ROWS[0]]), "--kind", "film", "--strict", "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    counted = {name: result[name] for name in ("rows read", "items in the index", "from the file", "duplicates dropped", "rejected")}
    assert counted == {"rows read": 7, "items in the index": 4, "from the file": 4, "duplicates dropped": 1, "rejected": 2}
    rejects = [json.loads(line) for line in Path(result["rejects_file"]).read_text().splitlines()]
    assert [row["line"] for row in rejects] == [6, 7]
    assert "title is missing" in rejects[0]["reason"]
    assert "2 of 7 rows were rejected" in result["warnings"]
    for warning in result["warnings"]:
        assert f"warning: {warning}" in done.stderr
    assert "rejected rows, with line and reason" in done.stderr
    assert "next: matinee search" in done.stderr
    fields = {field["column"]: field for field in result["understood"]["fields"]}
    assert (fields["genres"]["target"], fields["genres"]["rules"], fields["genres"]["read"]) == ("genres", {"separator": "pipe"}, 6)
    written = [settings.index_dir, *settings.index_dir.rglob("*"), Path(result["rejects_file"])]
    assert not [path for path in written if path.stat().st_mode & 0o077], "nobody else reads them, in a home that was chosen too"
    found = held(settings)
    assert sorted(payload["title"] for payload in found.values()) == sorted(row[0] for row in ROWS)
    assert {payload["kind"] for payload in found.values()} == {"film"}


def test_an_item_that_the_encoder_fails_at_is_rejected_and_the_rest_is_searchable(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Embedder.encode

    def failing(self: Embedder, texts: Sequence[str], *, kind: Kind) -> Matrix:
        if any("careful thieves" in text for text in texts):
            raise IndexError("index out of range in self")
        return encode(self, texts, kind=kind)

    monkeypatch.setattr(Embedder, "encode", failing)
    done = ingest(tmp_path, write(tmp_path / "films.csv", [BROKEN[0], *ROWS]), "--kind", "film", "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert [result[name] for name in ("rows read", "items in the index", "from the file", "rejected")] == [5, 3, 3, 2]
    reason = "the encoder failed: IndexError: index out of range in self"
    assert f"1 items are not in the index, because a model failed at them; the first is on line 3: {reason}" in result["warnings"]
    rejects = [json.loads(line) for line in Path(result["rejects_file"]).read_text().splitlines()]
    assert [(row["line"], row["reason"]) for row in rejects] == [(2, "the title is missing"), (3, reason)]
    assert json.loads(rejects[1]["raw"])["title"] == "Heat"
    assert "Heat" not in {payload["title"] for payload in held(settings).values()}
    refused(
        ingest(tmp_path, write(tmp_path / "films.csv", ROWS[:1]), "--kind", "film"), 4, "no item could be made a point; the first, 'Heat'"
    )
    assert len(held(settings)) == 3, "the old index stays"


def test_a_second_ingest_encodes_only_what_is_new_or_changed(settings: Settings, tmp_path: Path) -> None:
    def texts(rows: list[tuple[str, ...]], **more: str) -> tuple[int, int]:
        done = ingest(tmp_path, write(tmp_path / "films.csv", rows), "--kind", "film", "--json", **more)
        assert done.exit_code == 0, done.stderr
        result = json.loads(done.stdout)
        return result["texts encoded"], result["texts known from the last ingest"]

    assert texts(ROWS) == (4, 0)
    changed = [*ROWS[:2], (*ROWS[2][:3], "Somebody mends clocks."), ("Ran", "1985", "Drama", "A lord divides his lands.")]
    # Another year is no other text.
    assert texts([(ROWS[0][0], "1996", *ROWS[0][2:]), *changed[1:]]) == (2, 2)
    assert {payload["title"] for payload in held(settings).values()} == {row[0] for row in changed}
    assert texts(ROWS) == (2, 2)
    done = ingest(tmp_path, tmp_path / "films.csv", "--kind", "film", "--json", MATINEE_INDEX__KEEP_VECTORS="false")
    assert "texts encoded" not in json.loads(done.stdout)


def test_attributes_are_proposed_or_declared_and_changes_are_told(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "things.csv"
    path.write_text("title,Price,New\nCup,1.5,yes\nPot,12,no\nPan,,no\n", encoding="utf-8")
    proposed = json.loads(ingest(tmp_path, path, "--json", MATINEE_CATALOGUE=settings.catalogue).stdout)
    rows = {row["name"]: row for row in proposed["attributes"]}
    assert (rows["price"]["type"], rows["price"]["missing"], rows["new"]["type"]) == ("float", 1, "boolean")
    declared = tmp_path / "attributes.yaml"
    declared.write_text("attributes: {price: {type: integer, source: Price}, title: {type: text, source: title}}", encoding="utf-8")
    done = ingest(tmp_path, path, "--attributes", declared, "--json", MATINEE_CATALOGUE=settings.catalogue)
    answer = json.loads(done.stdout)
    assert "attribute price was of type float and is of type integer now: requests that filter by it may fail" in answer["warnings"]
    assert "attribute new is gone: requests that filter by it will fail" in answer["warnings"]
    price = next(row for row in answer["attributes"] if row["name"] == "price")
    assert (price["missing"], price["unread"]) == (2, 1)
    manifest = json.loads(next(tmp_path.rglob(f"{answer['version']}/manifest.json")).read_text())
    assert set(manifest["attributes"]) == {"price", "title"}
    wrong = ingest(tmp_path, path, "--attributes", path)
    assert wrong.exit_code == 3
    assert "has no attributes" in wrong.stderr


def test_a_dry_run_says_what_was_understood_and_builds_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "films.csv", [*ROWS, *BROKEN])
    done = ingest(tmp_path, path, "--kind", "film", "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["rows"], result["items"], result["rejected"]) == (6, 5, 1)
    assert [item["title"] for item in result["first_items"]] == ["Heat", "Alien", "Amélie"]
    assert result["first_items"][0]["genres"] == ["Crime", "Drama"]
    understood = result["understood"]
    assert understood["format"] == {"kind": "delimited text", "encoding": "utf-8", "delimiter": "comma", "quote": '"'}
    assert understood["years"] == [1979, 2007]
    year = next(field for field in understood["fields"] if field["column"] == "year")
    assert (year["target"], year["read"], year["left_out"], year["example"]) == ("year", 4, 1, "1995")
    assert year["left_out_example"] == "line 7, not a year: 'not a year' is not a date or a year"
    shown = ingest(tmp_path, path, "--kind", "film", "--dry-run")
    for part in (
        "delimiter: comma",
        "separator pipe",
        "years from 1979 to 2007",
        "nothing was built",
        "rejected: line 6",
        '"title": "Alien"',
    ):
        assert part in shown.stderr
    assert {entry.name for entry in tmp_path.iterdir()} == {"films.csv"}


def test_the_rows_of_a_query_are_a_source(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE films (title, year, genres, overview)")
        database.executemany("INSERT INTO films VALUES (?, ?, ?, ?)", [*ROWS, *BROKEN])
    query = ("--database", f"sqlite:///{path}", "--query", "SELECT * FROM films", "--kind", "film", "--dry-run")
    result = json.loads(ingest(tmp_path, *query, "--json").stdout)
    assert (result["rows"], result["items"], result["rejected"]) == (6, 5, 1)
    assert [item["title"] for item in result["first_items"]] == ["Heat", "Alien", "Amélie"]
    refused(ingest(tmp_path, *query, "--map", "overview=Plot"), 3, "there is no column 'Plot'")
    none = ("SELECT * FROM films WHERE year = '1'" if word == query[3] else word for word in query)
    refused(ingest(tmp_path, *none), 3, "the query gives no rows")
    assert {entry.name for entry in tmp_path.iterdir()} == {"shop.db"}


def test_files_of_a_store_or_a_web_server_are_a_source(tmp_path: Path, httpserver_of: Callable[[Path], str]) -> None:
    parts = [write(tmp_path / f"{number}.csv", rows).read_bytes() for number, rows in enumerate([ROWS[:2], [*ROWS[2:], BROKEN[0]]])]
    store = fsspec.filesystem("memory")
    for number, part in enumerate(parts):
        store.pipe(f"/shop/films/part-{number}.csv", part)
    store.pipe("/shop/films/_SUCCESS", b"")
    for source in ("memory://shop/films", "memory://shop/films/*.csv"):
        result = json.loads(ingest(tmp_path, source, "--kind", "film", "--dry-run", "--json").stdout)
        assert (result["rows"], result["items"], result["rejected"], result["understood"]["format"]["files"]) == (5, 4, 1, "2")
    said = ingest(tmp_path, "memory://shop/films/", "--dry-run").stderr
    assert "rejected: line 4 of part-1.csv the title is missing" in said
    store.pipe("/shop/films/part-2.jsonl", b'{"title": "Ran"}')
    refused(ingest(tmp_path, "memory://shop/films", "--dry-run"), 3, "shop/films holds files of several kinds")
    refused(ingest(tmp_path, "memory://shop/books", "--dry-run"), 3, "memory://shop/books: there is no catalogue file")
    # A signature or a password of a URL is in no message, and in no manifest.
    web = httpserver_of(tmp_path).replace("//", "//me:secret@")
    source = f"{web}/0.csv?X-Amz-Signature=secret"
    result = json.loads(ingest(tmp_path, source, "--kind", "film", "--dry-run", "--json").stdout)
    assert (result["rows"], result["items"]) == (2, 2)
    absent = ingest(tmp_path, source.replace("0.csv", "9.csv"), "--dry-run")
    refused(absent, 3, "cannot read http://127.0.0.1")
    assert "secret" not in absent.stderr.partition("error: ")[2]


@pytest.fixture
def httpserver_of() -> Iterator[Callable[[Path], str]]:
    """Serves a folder over HTTP until the end of the test."""
    with ExitStack() as stack:

        def serve(folder: Path) -> str:
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))))
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}"

        yield serve


@pytest.mark.parametrize(
    ("args", "exit_code", "said"),
    [
        (["none.csv"], 3, "none.csv"),
        ([], 3, "name one catalogue file"),
        (["films.csv", "--demo"], 3, "name one catalogue file"),
        (["films.csv", "--map", "overview"], 3, "write it as FIELD=COLUMN"),
        (["films.csv", "--map", "overview=Plot"], 3, "Plot"),
        (["films.csv", "--map", "plot=overview"], 3, "plot"),
        (["films.csv", "--query", "SELECT 1"], 3, "name one catalogue file"),
        (["--query", "SELECT 1"], 2, "--query needs --database"),
        (["films.csv", "--engine", "ray", "--via", "api"], 2, "--engine ray spreads models over a cluster, but --via api"),
        (["films.csv", "--engine", "ray", "--workers", "500", "--threads", "1"], 2, "500 workers of 1 threads need 500 CPUs"),
        (["films.csv", "--recipe", "magic"], 2, "--recipe magic: use raw, enhanced, both"),
        (["films.csv", "--catalogue", "My Films"], 2, "catalogue"),
        (["films.csv", "--catalogue", "all"], 2, "'all' is no name for a catalogue"),
        (["broken.csv"], 3, "no usable item in 1 rows, the first because: the title is missing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_not_be_ingested_is_explained_by_an_exit_code(tmp_path: Path, args: list[str], exit_code: int, said: str) -> None:
    write(tmp_path / "films.csv", ROWS[:2])
    write(tmp_path / "broken.csv", BROKEN[:1])
    refused(ingest(tmp_path, *(tmp_path / arg if arg.endswith(".csv") else arg for arg in args)), exit_code, said)
    assert not (tmp_path / "index" / "demo" / "CURRENT").exists()


def test_the_help_has_examples_and_every_option(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from matinee.cli.main import app; app()", "ingest", "--help"]
    watched = environ(tmp_path, PYTHONPROFILEIMPORTTIME="1")
    done = subprocess.run(command, env=watched, capture_output=True, text=True, check=True, timeout=HANG_S)
    assert "matinee ingest films.csv" in done.stdout
    assert "--map" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"matinee.cli.main", "train.jobs.indexing"} <= imported
    assert not {"torch", "transformers", "ray"} & imported, "seconds that only who loads a model should wait"


def test_a_job_that_helm_rollback_starts_again_leaves_the_newer_index_alone(settings: Settings, tmp_path: Path) -> None:
    new, old = write(tmp_path / "new.csv", ROWS), write(tmp_path / "old.csv", ROWS[:2])
    done = ingest(tmp_path, new, HELM_REVISION="5", HELM_NEWEST_REVISION="5")
    assert done.exit_code == 0, done.stderr
    current = (settings.index_dir / "CURRENT").read_bytes()
    done = ingest(tmp_path, old, HELM_REVISION="2", HELM_NEWEST_REVISION="5")
    assert done.exit_code == 0, done.stderr
    assert "nothing was built" in done.stderr
    assert "revision 5 built the current index" in " ".join(done.stderr.split())
    assert (settings.index_dir / "CURRENT").read_bytes() == current
    # Before the newest hook was there; a release that was installed anew counts from 1 again; and by hand there is no release.
    for release, newest, newer in ((2, None, 5), (1, 1, None), (6, 6, None), (None, None, None)):
        assert newer_release(settings, IngestOptions(release=release, newest_release=newest)) == newer


def test_an_index_that_a_stranger_holds_is_left_alone(local_graph: Any, settings: Settings, tmp_path: Path) -> None:
    asyncio.run(local_graph.build_index(settings, [Item(kind="film", title="Before")]))
    current = (settings.index_dir / "CURRENT").read_bytes()
    path = write(tmp_path / "films.csv", ROWS[:2])
    refused(held(settings, lambda _: ingest(tmp_path, path)), 5, "another process has the index")
    assert (settings.index_dir / "CURRENT").read_bytes() == current


def test_beside_a_server_api_items_and_tombstones_are_kept_or_replaced(local_graph: Any, settings: Settings, tmp_path: Path) -> None:
    before = [Item(kind="film", title="Heat", year=1995), Item(kind="film", title="Alien", year=1979)]
    path = write(tmp_path / "films.csv", ROWS)
    mine = Item(id="mine", kind="film", title="Mine")
    with local_graph.serve_app(lambda: local_graph.build_local_graph(tmp_path, films=before)) as url:
        settings.server_file.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
        server = Client(url)
        server.send(Call("PUT", "/v1/items", body={"items": [mine.facts()]}))
        server.send(Call("DELETE", f"/v1/items/{before[1].uid('demo')}"))
        kept = ingest(tmp_path, path, "--kind", "film", "--json")
        assert kept.exit_code == 0, kept.stderr
        result = json.loads(kept.stdout)
        assert [result[name] for name in ("from the file", "kept from the API", "deleted through the API")] == [3, 1, 1]
        # A flag is stronger than the environment, and the server's items belong to its own catalogue.
        elsewhere = ingest(tmp_path, path, "--catalogue", "other", "--json", MATINEE_CATALOGUE="demo")
        assert (tmp_path / "index" / "other" / "CURRENT").exists()
        assert json.loads(elsewhere.stdout)["kept from the API"] == 0
        # It is the server's too from now on, which holds its index when the next ingest begins.
        until(lambda: server.of("other") is not None, seconds=HANG_S)
        server.require("other").send(Call("PUT", "/v1/items", body={"items": [mine.facts()]}))
        again = ingest(tmp_path, path, "--catalogue", "other", "--json", MATINEE_CATALOGUE="demo")
        assert json.loads(again.stdout)["kept from the API"] == 1
        replaced = ingest(tmp_path, path, "--kind", "film", "--replace", "--json")
        assert json.loads(replaced.stdout)["API items discarded"] == 1
    found = held(settings)
    assert sorted(payload["title"] for payload in found.values()) == sorted(row[0] for row in ROWS)


def test_no_catalogue_more_than_may_be_there_is_built(settings: Settings, tmp_path: Path) -> None:
    path = write(tmp_path / "films.csv", ROWS[:2])
    asyncio.run(create_catalogue(settings, CatalogueRecord(name="first")))
    done = ingest(tmp_path, path, "--catalogue", "second", MATINEE_INDEX__CATALOGUES__MOST="1")
    refused(done, CatalogueConflictError.exit_code, "there are 1 catalogues already (index.catalogues.most)")
    assert not (tmp_path / "index" / "second" / "CURRENT").exists()


def test_a_catalogue_that_is_deleted_while_it_is_built_is_no_success(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "films.csv", ROWS[:2])
    asyncio.run(create_catalogue(settings, CatalogueRecord(name="other")))
    choose = train_ingest.choose_attributes

    def deleted(*args: Any, **options: Any) -> Any:
        asyncio.run(remove_catalogue(settings, "other"))
        return choose(*args, **options)

    monkeypatch.setattr(train_ingest, "choose_attributes", deleted)
    done = ingest(tmp_path, path, "--catalogue", "other")
    refused(done, CatalogueConflictError.exit_code, "was deleted while this ingest ran")
    assert not (tmp_path / "index" / "other" / "CURRENT").exists()


def test_a_kill_in_mid_build_leaves_the_current_version(local_graph: Any, settings: Settings, tmp_path: Path) -> None:
    asyncio.run(local_graph.build_index(settings, [Item(kind="film", title="Before")]))
    before, versions = held(settings), {path.name for path in settings.index_dir.iterdir()}
    current = (settings.index_dir / "CURRENT").read_bytes()
    path = write(tmp_path / "films.csv", [(f"Film {i}", "1990", "Drama", f"{i} words " * 60) for i in range(2000)])

    def building() -> bool:
        if process.poll() is not None:
            pytest.fail(f"it ended with exit code {process.returncode} before it built anything")
        return any((new / "shard").is_dir() for new in settings.index_dir.iterdir() if new.name not in versions)

    # With the models of a server: loading them is not what a kill is about.
    with local_graph.serve_app(lambda: local_graph.build_local_graph(tmp_path / "server", films=())) as url:
        command = [sys.executable, "-m", "train.ingest", str(path), "--kind", "film", "--via", "api", "--url", url]
        process = subprocess.Popen([*command, "--rejects", str(tmp_path)], env=environ(tmp_path), stderr=subprocess.DEVNULL)
        until(building, seconds=HANG_S)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert (settings.index_dir / "CURRENT").read_bytes() == current
    assert held(settings) == before
    left = {path.name for path in settings.index_dir.iterdir()} - versions
    assert len(left) == 1
    done = ingest(tmp_path, write(path, ROWS), "--kind", "film")
    assert done.exit_code == 0, done.stderr
    assert len(held(settings)) == 4
    assert not left & {path.name for path in settings.index_dir.iterdir()}
