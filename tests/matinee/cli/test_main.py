"""`matinee.cli.main`: help that teaches, JSON that parses, errors in one line with an exit code; through HTTP and without a server."""

import asyncio
import gzip
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from matinee.cli.main import app
from matinee.items import Item

Run = Callable[..., Result]
ITEMS = [["items", name] for name in ("get", "put", "patch", "delete", "import", "imports", "cancel")]
CATALOGUES = [["catalogues", name] for name in ("list", "create", "update", "delete")]
COMMANDS = [
    ["search"],
    ["recommend"],
    ["describe"],
    ["info"],
    ["ingest"],
    ["demo"],
    ["index", "list"],
    ["index", "rollback"],
    ["index", "create"],
    *ITEMS,
    *CATALOGUES,
]
ODD = Item(id="odd", kind="film", title="[bold]Brackets[/] and [/x]", year=1999, genres=("[red]",), overview="Zebras in square brackets.")


def runner(home: Path) -> Run:
    def run(*args: str, **environ: str) -> Result:
        env: dict[str, str | None] = {"MATINEE_HOME": str(home), "MATINEE_EMBEDDER__PRECISION": "fp32", "COLUMNS": "250", **environ}
        return CliRunner().invoke(app, args, env=env)

    return run


@pytest.fixture(scope="module")
def films(local_graph: Any) -> list[Item]:
    titles = {"Inception", "The Matrix", "Titanic", "Heat", "Beauty and the Beast"}
    return [ODD, *(film for i, film in enumerate(local_graph.demo_films()) if i % 20 == 0 or film.title in titles)]


@pytest.fixture(scope="module")
def run(local_graph: Any, films: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The CLI over an index, without a server."""
    home = tmp_path_factory.mktemp("home")
    asyncio.run(local_graph.build_index(local_graph.local_settings(home), films))
    return runner(home)


@pytest.fixture(scope="module")
def served(local_graph: Any, films: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The CLI beside a active server, which alone can open the index."""
    home = tmp_path_factory.mktemp("served")
    enhancer = local_graph.FakeEnhancer(marked=frozenset({"Inception"}))
    with local_graph.serve_app(lambda: local_graph.build_local_graph(home, films=films, enhancer=enhancer)) as url:
        (home / "server.json").write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
        yield runner(home)


@pytest.fixture(params=["run", "served"])
def both(request: pytest.FixtureRequest) -> Run:
    found: Run = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def empty(tmp_path: Path) -> Run:
    return runner(tmp_path)


def refused(result: Result, exit_code: int, *said: str) -> None:
    assert result.exit_code == exit_code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert result.stdout == ""
    for part in said:
        assert part in result.stderr


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != ["ingest"]], ids=" ".join)
def test_every_help_has_an_example(empty: Run, command: list[str]) -> None:
    help = empty(*command, "--help")
    assert help.exit_code == 0
    assert f"matinee {' '.join(command)}" in help.stdout.split("Usage:")[1].split("\n", 1)[1]


def test_the_first_help_names_every_command_and_the_exit_codes(empty: Run) -> None:
    help = empty("--help").stdout
    assert all(command[0] in help for command in COMMANDS)
    assert "Exit codes: 0 done" in help
    assert "matinee demo" in help


def test_a_search_prints_a_table(both: Run) -> None:
    found = both("search", "a thief who enters dreams", "--mode", "dense", "-k", "3", "--from", "2000")
    assert found.exit_code == 0, found.output
    assert "Inception" in found.stdout
    assert "cosine" in found.stdout


@pytest.mark.parametrize(
    "args",
    [
        ["search", "dreams"],
        ["search", "dreams", "--mode", "sparse", "--genre", "Drama", "--genre", "Action", "--language", "en"],
        ["recommend", "Inception", "the matirx", "--dislike", "Titanic", "--text", "a heist", "--diversity", "0.5", "-k", "3"],
        ["recommend"],
        ["info"],
    ],
    ids=" ".join,
)
def test_json_parses_and_is_alone_on_stdout(both: Run, args: list[str]) -> None:
    found = both(*args, "--json")
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert answer["catalogue"] == "demo" if args == ["info"] else answer["items"]


def test_server_and_local_rank_alike(run: Run, served: Run) -> None:
    for args in (["search", "a doomed ship"], ["recommend", "Heat", "Titanic"]):
        ranked = [[card["id"] for card in json.loads(way(*args, "--json").stdout)["items"]] for way in (run, served)]
        assert ranked[0] == ranked[1]


@pytest.mark.parametrize("args", [["search", "a heist inside dreams"], ["recommend", "Inception"]], ids=" ".join)
def test_debug_lists_what_dropped_a_candidate(served: Run, args: list[str]) -> None:
    table = served(*args, "-k", "1", "--to", "1990", "--debug").stdout
    assert "place or why not" in table
    assert "filter.year" in table
    assert "debug" in json.loads(served(*args, "--debug", "--json").stdout)
    assert "place or why not" not in served(*args).stdout


def test_debug_needs_a_server(run: Run) -> None:
    refused(run("search", "dreams", "--debug"), 2, "--debug asks a running server")


def test_reasons_stand_under_their_titles(both: Run) -> None:
    assert "If you enjoyed Heat, you might love" in both("recommend", "Heat", "-k", "2").stdout


def test_an_id_is_as_good_as_a_title(both: Run, films: list[Item]) -> None:
    heat = next(film for film in films if film.title == "Heat")
    assert json.loads(both("recommend", heat.uid("demo"), "--json").stdout)["likes"][0]["title"] == "Heat"


def test_brackets_in_an_item_or_a_message_are_printed_as_they_are(both: Run) -> None:
    found = both("search", "zebras in square brackets", "-k", "1")
    assert ODD.title in found.stdout
    assert "[red]" in found.stdout
    refused(both("recommend", "[/nothing] [like] this"), 6, "'[/nothing] [like] this'")


def test_an_unknown_title_is_explained(both: Run) -> None:
    refused(both("recommend", "Zzyzx Qqqq"), 6, "error: no item is titled 'Zzyzx Qqqq'")


def test_an_ambiguous_title_lists_what_was_meant(both: Run, films: list[Item]) -> None:
    meant = [film for film in films if film.title == "Beauty and the Beast"]
    said = [f"Beauty and the Beast ({film.year})  {film.uid('demo')}" for film in meant]
    refused(both("recommend", "Beauty and the Beast"), 6, "could be any of", *said)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["search", "x", "--mode", "psychic"], "'psychic': use dense, sparse or hybrid"),
        (["search", "x", "--from", "2020", "--to", "1990"], "gte 2020 is above lte 1990"),
        (["search", "x", "--genre", " "], "--genre"),
        (["search", "  "], "TEXT is empty"),
        (["recommend", ""], "a title is empty"),
        (["search", "x", "-k", "0"], "'-k'"),
        (["recommend", "Heat", "--diversity", "2"], "--diversity"),
        (["search"], "Missing argument"),
        (["nonsense"], "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_request_is_a_usage_error(both: Run, args: list[str], said: str) -> None:
    refused(both(*args), 2, said)


def test_nothing_found_says_what_to_try(both: Run) -> None:
    found = both("search", "x", "--language", "tlh")
    assert (found.exit_code, found.stdout) == (0, "")
    assert "relax the filters" in found.stderr


@pytest.mark.parametrize("args", [["search", "x"], ["recommend", "Heat"], ["describe", "Heat"]], ids=" ".join)
def test_without_an_index_the_next_command_is_named(empty: Run, args: list[str]) -> None:
    refused(empty(*args), 5, "there is no index yet", "matinee ingest")


def test_info_and_index_work_without_an_index(empty: Run) -> None:
    info = empty("info")
    assert info.exit_code == 0
    assert "next: build an index with matinee ingest FILE" in info.stderr
    assert json.loads(empty("index", "list", "--json").stdout) == {"current": None, "previous": None, "versions": []}
    refused(empty("index", "rollback"), 5, "no previous index version")


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in (["ingest"], ["demo"])], ids=" ".join)
def test_bad_settings_stop_every_command(empty: Run, command: list[str]) -> None:
    texts = {"patch": ["x", "{}"], "imports": []}.get(command[-1], ["x"]) if command[0] == "items" else ["x"]
    named = command[0] in ("search", "recommend", "describe", "items") or (command[0] == "catalogues" and command[1] != "list")
    args = [*command, *texts] if named else command
    refused(empty(*args, MATINEE_INDX__URL="x"), 2, "MATINEE_INDX__URL: did you mean MATINEE_INDEX__URL?")


def test_a_dead_server_is_passed_over(local_graph: Any, films: list[Item], tmp_path: Path) -> None:
    asyncio.run(local_graph.build_index(local_graph.local_settings(tmp_path), films[:3]))
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    (tmp_path / "server.json").write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
    assert json.loads(runner(tmp_path)("info", "--json").stdout)["server"] is None
    assert runner(tmp_path)("search", "zebras", "--mode", "sparse").exit_code == 0


def test_a_url_where_nothing_listens_is_explained(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    refused(run("search", "x", "--url", url), 5, f"the server at {url} does not answer")
    refused(run("info", MATINEE_URL=url), 5, "does not answer")
    refused(run("info", "--url", "nonsense"), 2, "is not the URL of a server")


def test_an_index_that_lies_here_is_searched_beside_a_server_without_it(
    served: Run, local_graph: Any, films: list[Item], tmp_path: Path
) -> None:
    asyncio.run(local_graph.build_index(local_graph.local_settings(tmp_path, catalogue="books"), films[:3]))
    url = json.loads(served("info", "--json").stdout)["server"]
    (tmp_path / "server.json").write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
    assert runner(tmp_path)("search", "zebras", "--mode", "sparse", MATINEE_CATALOGUE="books").exit_code == 0
    refused(runner(tmp_path)("search", "x", MATINEE_CATALOGUE="games"), 6, "has no catalogue 'games': use one of demo")


def test_describe_asks_the_server_and_says_what_was_marked(served: Run) -> None:
    plain = served("describe", "heat")
    assert (plain.exit_code, plain.stdout.strip(), plain.stderr) == (0, "Heat, in other words.", "")
    marked = served("describe", "Inception")
    assert "marked: a name that the metadata does not have" in marked.stderr
    assert json.loads(served("describe", "Inception", "--json").stdout)["marked"] is True
    refused(served("describe", "Zzyzx Qqqq"), 6, "no item is titled")


def test_info_names_the_server(served: Run) -> None:
    info = json.loads(served("info", "--json").stdout)
    assert info["server"].startswith("http://127.0.0.1:")
    assert "index.version" in served("info").stdout


def test_versions_are_listed_and_rolled_back(local_graph: Any, films: list[Item], tmp_path: Path) -> None:
    run, settings = runner(tmp_path), local_graph.local_settings(tmp_path)
    for size in (2, 3):
        asyncio.run(local_graph.build_index(settings, films[:size]))
    new, old = (row["version"] for row in json.loads(run("index", "list", "--json").stdout)["versions"])
    rows = run("index", "list").stdout.splitlines()
    assert next(row for row in rows if new in row).split("│")[1].strip() == "current"
    assert next(row for row in rows if old in row).split("│")[1].strip() == "previous"
    back = run("index", "rollback")
    assert back.stdout.strip() == f"current is now {old} (2 items)"
    assert json.loads(run("index", "rollback", "--json").stdout)["version"] == new


def test_items_are_put_changed_and_deleted_through_a_server(served: Run, tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl"
    file.write_text('{"id": "cli-1", "title": "One"}\n{"id": "cli-2"}\n{"id": "cli/3", "title": "Three"}', encoding="utf-8")
    done = json.loads(served("items", "put", str(file), "--json").stdout)
    assert (done["lines"], done["written"], done["rejects"][0]["line"]) == (3, 2, 2)
    changed = json.loads(served("items", "patch", "cli/3", '{"year": 1999}').stdout)
    assert changed["item"] == {"id": "cli/3", "title": "Three", "year": 1999}
    assert json.loads(served("items", "get", "cli/3").stdout) == changed
    rehearsed = served("items", "delete", "cli-1", "cli/3", "never", "--dry-run")
    assert "2 items would be deleted" in rehearsed.stdout
    assert "never" in rehearsed.stderr
    assert json.loads(served("items", "delete", "cli-1", "cli/3", "--json").stdout)["count"] == 2
    assert served("items", "get", "cli-1").exit_code == 6


def test_an_import_is_waited_for(served: Run, tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"id": "cli-4", "kind": "lamp", "title": "Four"}\n'))
    done = json.loads(served("items", "import", str(file), "--json").stdout)
    assert (done["status"], done["written"]) == ("done", 1)
    assert [state["id"] for state in json.loads(served("items", "imports", "--json").stdout)] == [done["id"]]
    assert "is done" in served("items", "cancel", done["id"]).stdout
    only = '{"kind": ["lamp"]}'
    assert "1 items would be deleted" in served("items", "delete", "--filter", only, "--dry-run").stdout
    assert json.loads(served("items", "delete", "--filter", only, "--json").stdout)["count"] == 1


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["items", "patch", "x", "{"], 2),
        (["items", "patch", "x", "[1]"], 2),
        (["items", "patch", "no-such-item", "{}"], 6),
        (["items", "cancel", "nope"], 6),
        (["items", "delete"], 2),
        (["items", "delete", "x", "--filter", '{"kind": ["lamp"]}'], 2),
        (["items", "delete", "--filter", "{"], 2),
        (["items", "delete", "--filter", "{}"], 2),
        (["items", "put", "/no/such/file.jsonl"], 1),
    ],
)
def test_commands_of_items_that_will_not_do(served: Run, args: list[str], code: int) -> None:
    result = served(*args)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output


def test_items_need_a_server(run: Run) -> None:
    result = run("items", "get", "x")
    assert result.exit_code == 5
    assert "python -m serve" in result.stderr


def test_values_that_can_not_be_written_are_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["size", "1000", "--values", str(tmp_path / "file" / "values.yaml")])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "values.yaml" in result.stderr


def test_catalogues_are_created_listed_and_deleted_with_and_without_a_server(both: Run, tmp_path: Path) -> None:
    made = both("catalogues", "create", "books", "--kind", "book", "--mode", "sparse", "--max-k", "30", "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["search"] == {"mode": "sparse", "max_k": 30}
    refused(both("catalogues", "create", "books"), 5, "exists already")
    refused(both("catalogues", "create", "demo"), 5, "the default one")
    refused(both("catalogues", "create", "Books"), 2, "name: use lower-case letters")
    refused(both("catalogues", "create", "b", "--mode", "fuzzy"), 2, "mode")
    rows = json.loads(both("catalogues", "list", "--json").stdout)
    assert [(row["name"], row["default"], row["kind"]) for row in rows] == [("demo", True, None), ("books", False, "book")]
    assert "books" in both("catalogues", "list").stdout
    options = ["--title", "Old books", "--mode", "dense", "--unset", "max_k"]
    changed = json.loads(both("catalogues", "update", "books", *options, "--json").stdout)
    assert (changed["title"], changed["search"], changed["kind"]) == ("Old books", {"mode": "dense"}, "book")
    refused(both("catalogues", "update", "demo", "--title", "x"), 5, "the server's settings")
    refused(both("catalogues", "update", "nope", "--title", "x"), 6, "no catalogue 'nope'", "books")
    refused(both("catalogues", "update", "books", "--mode", "fuzzy"), 2, "mode")
    assert both("catalogues", "update", "books").exit_code == 2
    assert both("catalogues", "update", "books", "--unset", "name").exit_code == 2
    refused(both("catalogues", "delete", "demo", "--yes"), 5, "default one")
    assert both("catalogues", "delete", "books", "--yes").exit_code == 0
    refused(both("catalogues", "delete", "books", "--yes"), 6, "there is no catalogue 'books'")
    refused(both("catalogues", "delete", "books"), 6, "there is no catalogue 'books'")


def test_attributes_are_declared_anew_with_and_without_a_server(both: Run, tmp_path: Path) -> None:
    before = [*json.loads(both("catalogues", "list", "--json").stdout)[0].items()]
    file = tmp_path / "attributes.yaml"
    own = "".join(f"  {name}: {{type: keyword, source: {name}, facet: true}}\n" for name in ("kind", "language"))
    own += "  genres: {type: keyword, source: genres, many: true, facet: true}\n  year: {type: integer, source: year}\n"
    numbers = "  rating: {type: float, source: numbers.rating}\n  votes: {type: float, source: numbers.votes}\n"
    file.write_text(f"attributes:\n{own}{numbers}  odd: {{type: boolean, source: extra.odd}}\n", encoding="utf-8")
    done = json.loads(both("catalogues", "update", "demo", "--attributes", str(file), "--json").stdout)
    assert (done["attributes"], done["building"], done["items"]) == (7, False, dict(before)["items"])
    assert "no item" not in both("search", "zebras", "--mode", "sparse", "--filter", '{"odd": {"missing": true}}').output
    file.write_text(f"attributes:\n{own}{numbers}", encoding="utf-8")
    assert json.loads(both("catalogues", "update", "demo", "--attributes", str(file), "--json").stdout)["attributes"] == 6


def test_an_empty_server_gets_its_first_index(local_graph: Any, tmp_path: Path) -> None:
    home = tmp_path / "empty"
    with local_graph.serve_app(lambda: local_graph.build_local_graph(home, films=[])) as url:
        run = runner(home)
        refused(run("items", "get", "x", "--url", url), 5, "matinee index create")
        assert "empty index" in run("index", "create", "--url", url).stdout
        refused(run("index", "create", "--url", url), 5, "has an index already")
        refused(run("index", "create"), 5, "python -m serve")
        file = tmp_path / "one.jsonl"
        file.write_text('{"id": "one", "title": "One"}', encoding="utf-8")
        assert json.loads(run("items", "put", str(file), "--url", url, "--json").stdout)["written"] == 1


def test_an_unknown_catalogue_is_an_error_that_names_those_there_are(both: Run) -> None:
    assert both("catalogues", "create", "books").exit_code == 0
    commands = (
        ["search", "x"],
        ["recommend", "x"],
        ["describe", "x"],
        ["info"],
        ["info", "--json"],
        ["index", "list"],
        ["index", "rollback"],
    )
    for command in commands:
        refused(both(*command, "--catalogue", "nope"), 6, "no catalogue 'nope'", "books", "demo")
    assert both("catalogues", "delete", "books", "--yes").exit_code == 0


def test_a_server_is_not_passed_over_for_a_catalogue_that_is_nowhere(served: Run, run: Run) -> None:
    for command in (["search", "x"], ["info"]):
        refused(served(*command, MATINEE_CATALOGUE="nope"), 6, "the server at", "has no catalogue 'nope': use one of demo")
    assert run("info", MATINEE_CATALOGUE="nope").exit_code == 0, "the first look at a new machine"
    assert "there is no version yet" in run("index", "list", MATINEE_CATALOGUE="nope").stderr


def test_items_and_searches_go_to_the_catalogue_that_is_named(served: Run, tmp_path: Path) -> None:
    assert served("catalogues", "create", "books").exit_code == 0
    file = tmp_path / "books.jsonl"
    file.write_text('{"id": "b1", "title": "Dune", "overview": "A desert planet."}', encoding="utf-8")
    assert json.loads(served("items", "put", str(file), "--catalogue", "books", "--json").stdout)["written"] == 1
    for named in (["--catalogue", "books"], []):
        environ = {} if named else {"MATINEE_CATALOGUE": "books"}
        found = json.loads(served("search", "a desert planet", "--mode", "sparse", *named, "--json", **environ).stdout)
        assert [card["item"]["title"] for card in found["items"]] == ["Dune"]
    assert json.loads(served("info", "--catalogue", "books", "--json").stdout)["catalogue"] == "books"
    refused(served("items", "get", "b1"), 6, "no item has the id")
    refused(served("items", "get", "b1", "--catalogue", "games"), 6, "has no catalogue 'games': use one of demo, books")
    assert served("catalogues", "delete", "books", "--yes").exit_code == 0
