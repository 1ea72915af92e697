"""The command line: `matinee`. While a server is alive every command talks HTTP to it; otherwise it opens the index itself.

Holds no logic of its own, and starts the jobs and the server as processes (`python -m train.ingest`, `python -m serve`).
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Annotated, Any, ParamSpec

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from matinee.cli.evalset import evalset_app
from matinee.cli.models import models_app
from matinee.client.http import Client
from matinee.errors import MatineeError
from matinee.items import ItemFilter, Range
from matinee.recommend.offline import OfflineCatalogue
from matinee.settings.load import load_settings
from matinee.settings.tree import Mode, Settings

P = ParamSpec("P")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Semantic recommendations from your own catalogue, on small models. Start with [bold]matinee demo[/].",
    epilog="Exit codes: 0 done, 1 failed, 2 settings or request, 3 catalogue file, 4 model, 5 index or server, 6 not found, 7 busy.",
    rich_markup_mode="rich",
)
index_app = typer.Typer(no_args_is_help=True, help="The versions of the index: list them, go back to the one before.")
app.add_typer(index_app, name="index")
app.add_typer(models_app, name="models")
app.add_typer(evalset_app, name="evalset")
err = Console(stderr=True)
out = Console()

Json = Annotated[bool, typer.Option("--json", help="print the answer as JSON")]
K = Annotated[int, typer.Option("-k", min=1, max=1000, help="how many items")]
Genres = Annotated[list[str] | None, typer.Option("--genre", help="only items of this genre; repeatable: any of them")]
Since = Annotated[int | None, typer.Option("--from", metavar="YEAR", help="only from this year on")]
Until = Annotated[int | None, typer.Option("--to", metavar="YEAR", help="only up to this year")]
Language = Annotated[list[str] | None, typer.Option("--language", help="only this language, e.g. fr; repeatable")]
Diversity = Annotated[float, typer.Option(min=0, max=1, help="0: the nearest items; towards 1: items that differ from each other")]
Url = Annotated[str | None, typer.Option("--url", envvar="MATINEE_URL", help="a server to ask; by default the one that runs here")]
Key = Annotated[str | None, typer.Option("--key", envvar="MATINEE_KEY", help="its API key", show_envvar=True)]


def explained(command: Callable[P, None]) -> Callable[P, None]:
    """Errors as one line on stderr and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except MatineeError as error:
            err.print(f"[red]error[/]: {escape(str(error))}", highlight=False, soft_wrap=True)
            candidates = getattr(error, "candidates", None) or []
            for candidate in candidates:
                year = f" ({candidate['year']})" if candidate.get("year") else ""
                err.print(escape(f"  {candidate['title']}{year}  {candidate['id']}"), highlight=False, soft_wrap=True)
            raise typer.Exit(error.exit_code) from None

    return run


def _server(settings: Settings, url: str | None, key: str | None) -> Client | None:
    server = Client(url, key=key) if url else Client.running(settings, key=key)
    return server if url or (server is not None and server.serves(settings.catalogue)) else None


def _filter(genres: list[str] | None, since: int | None, until: int | None, languages: list[str] | None) -> ItemFilter:
    try:
        year = Range(gte=since, lte=until) if since is not None or until is not None else None
        return ItemFilter(genres=tuple(genres or ()), language=tuple(languages or ()), year=year)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = {"genres": "--genre: ", "language": "--language: "}.get(str(next(iter(problem["loc"]), "")), "")
        raise typer.BadParameter(where + problem["msg"].removeprefix("Value error, ")) from None


def _given(text: str, name: str) -> str:
    if not text.strip():
        raise typer.BadParameter(f"{name} is empty")
    return text


@app.command()
@explained
def search(
    text: Annotated[str, typer.Argument(help="what you look for, in your own words")],
    mode: Annotated[str | None, typer.Option(help="dense (meaning), sparse (words) or hybrid (both)")] = None,
    k: K = 10,
    genre: Genres = None,
    since: Since = None,
    until: Until = None,
    language: Language = None,
    diversity: Diversity = 0.0,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Find items by words or meaning.

    [dim]matinee search "a heist inside dreams" --from 2000[/]
    """
    settings, filter, wanted = load_settings(), _filter(genre, since, until, language), _mode(mode)
    _given(text, "TEXT")
    server = _server(settings, url, key)
    if server is None:
        answer = OfflineCatalogue(settings).search(text, mode=wanted, k=k, filter=filter, diversity=diversity)
    else:
        body = {"text": text, "k": k, "filter": filter.model_dump(mode="json"), "diversity": diversity}
        answer = server.post("/v1/search", body | ({"mode": wanted} if wanted else {}))
    _show(answer, as_json)


@app.command()
@explained
def recommend(
    likes: Annotated[list[str] | None, typer.Argument(help="titles or ids that you like; typos are forgiven")] = None,
    dislike: Annotated[list[str] | None, typer.Option("--dislike", help="a title you don't like; repeatable")] = None,
    text: Annotated[str | None, typer.Option(help="what you are in the mood for")] = None,
    k: K = 10,
    genre: Genres = None,
    since: Since = None,
    until: Until = None,
    language: Language = None,
    diversity: Diversity = 0.0,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Recommend items to someone who likes these.

    [dim]matinee recommend Inception "The Matrix" --dislike Titanic[/]
    """
    settings, filter = load_settings(), _filter(genre, since, until, language)
    for given in (*(likes or []), *(dislike or [])):
        _given(given, "a title")
    server = _server(settings, url, key)
    if server is None:
        answer = OfflineCatalogue(settings).recommend(likes or [], dislike or [], text=text, k=k, filter=filter, diversity=diversity)
    else:
        body: dict[str, Any] = {"likes": likes or [], "dislikes": dislike or [], "k": k, "diversity": diversity}
        answer = server.post("/v1/recommend", body | {"filter": filter.model_dump(mode="json"), "text": text})
    _show(answer, as_json)


@app.command()
@explained
def describe(
    title: Annotated[str, typer.Argument(help="an item of the catalogue, by title")],
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Let the enhancer write a description of an item, checked against its metadata.

    [dim]matinee describe Inception[/]
    """
    settings = load_settings()
    server = _server(settings, url, key)
    if server is None:
        with err.status("loading the enhancer"):
            answer = OfflineCatalogue(settings).describe(title)
    else:
        found = server.post("/v1/recommend", {"likes": [title], "k": 1, "explain": False})["likes"][0]
        answer = server.post("/v1/describe", {"id": found["id"]})
    if as_json:
        _print_json(answer)
        return
    out.print(escape(answer["description"]), highlight=False)
    if answer["marked"]:
        err.print(escape(f"marked: {'; '.join(answer['violations'])}"), highlight=False)


@app.command()
@explained
def info(as_json: Json = False, url: Url = None, key: Key = None) -> None:
    """What runs or lies here: server, index version, models, limits, what is degraded.

    [dim]matinee info --json[/]
    """
    settings = load_settings()
    server = _server(settings, url, key)
    answer = OfflineCatalogue(settings).info() if server is None else {"server": server.url, **server.get("/v1/info")}
    if as_json:
        _print_json(answer)
        return
    table = Table(show_header=False)
    for name, value in _flat(answer):
        table.add_row(name, escape(value))
    out.print(table)
    if answer["index"] is None and not answer.get("index_trouble"):
        err.print("next: build an index with [bold]matinee ingest FILE[/], or [bold]matinee demo[/]")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def ingest(context: typer.Context) -> None:
    """Turn a catalogue file into a new index version and switch to it. See [bold]matinee ingest --help[/].

    [dim]matinee ingest films.csv --kind film[/]
    """
    raise typer.Exit(_run("train.ingest", *context.args))


@app.command()
@explained
def demo(
    port: Annotated[int | None, typer.Option(help="port of the page and the API; by default 8000, or a free one")] = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="also export metrics on loopback ports and run the recall probe")] = False,
) -> None:
    """Everything at once: fetch the models, ingest the bundled films, serve them, and say where to look. Ctrl-C stops it.

    [dim]matinee demo --port 9000[/]
    """
    from matinee.cli.demo import run

    run(load_settings(flags={"catalogue": "demo"}), port, err, metrics=metrics)


@index_app.command("list")
@explained
def index_list(as_json: Json = False) -> None:
    """The finished versions, newest first; the current one is marked.

    [dim]matinee index list[/]
    """
    answer = OfflineCatalogue(load_settings()).versions()
    if as_json:
        _print_json(answer)
        return
    table = Table("", "version", "items", "recipe", "created", "source")
    for row in answer["versions"]:
        mark = "current" if row["version"] == answer["current"] else "previous" if row["version"] == answer["previous"] else ""
        table.add_row(mark, row["version"], str(row["count"]), row["recipe"], row["created"], escape(row["source"]))
    out.print(table)


@index_app.command("rollback")
@explained
def index_rollback(as_json: Json = False) -> None:
    """Make the previous version current again. A running server follows within seconds; API writes are carried over.

    [dim]matinee index rollback[/]
    """
    answer = OfflineCatalogue(load_settings()).rollback()
    if as_json:
        _print_json(answer)
    else:
        out.print(f"current is now {answer['version']} ({answer['count']} items)", highlight=False)


def _mode(mode: str | None) -> Mode | None:
    match mode:
        case None | "dense" | "sparse" | "hybrid":
            return mode
    raise typer.BadParameter(f"{mode!r}: use dense, sparse or hybrid")


def _run(module: str, *args: str) -> int:
    return subprocess.run([sys.executable, "-m", module, *args], check=False).returncode  # noqa: S603


def _print_json(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2) + b"\n")


def _show(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(answer)
        return
    if not answer["items"]:
        err.print("nothing found: relax the filters, or ask for something else")
        return
    table = Table("", "title", "year", "genres", answer["score_type"], show_lines=any("reason" in card for card in answer["items"]))
    for rank, card in enumerate(answer["items"], 1):
        item = card["item"]
        title, genres = escape(item["title"]), escape(", ".join(item.get("genres", [])))
        if "reason" in card:
            title += f"\n[dim]{escape(card['reason'])}[/]"
        table.add_row(str(rank), title, str(item.get("year", "")), genres, f"{card['score']:.3f}")
    out.print(table)
    if answer.get("degraded"):
        err.print(f"[yellow]degraded[/]: made without {', '.join(answer['degraded'])}")


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
