"""`matinee search`, `recommend`, `describe` and `info`: a live server answers them, or the index of this machine does.

Does not rank: that is `matinee.recommend`.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from matinee.cli.errors import explain_errors
from matinee.cli.output import Json, err, out, print_json
from matinee.client import calls
from matinee.client.http import Client
from matinee.errors import FilterError
from matinee.filters import ItemFilter
from matinee.index.catalogues import has_index, own_settings, require_known
from matinee.recommend.offline import OfflineCatalogue
from matinee.recommend.results import RankedAnswer
from matinee.settings.load import load_settings
from matinee.settings.tree import Mode, Settings

K = Annotated[int, typer.Option("-k", min=1, max=1000, help="how many items")]
Genres = Annotated[list[str] | None, typer.Option("--genre", help="only items of this genre; repeatable: any of them")]
Since = Annotated[int | None, typer.Option("--from", metavar="YEAR", help="only from this year on")]
Until = Annotated[int | None, typer.Option("--to", metavar="YEAR", help="only up to this year")]
Language = Annotated[list[str] | None, typer.Option("--language", help="only this language, e.g. fr; repeatable")]
Where = Annotated[str | None, typer.Option("--filter", metavar="JSON", help="a filter by any attribute, as the API takes it")]
Diversity = Annotated[float, typer.Option(min=0, max=1, help="0: the nearest items; towards 1: items that differ from each other")]
Debug = Annotated[
    bool, typer.Option("--debug", help="also list the candidates, with what dropped them; key of scope admin, running server only")
]
Url = Annotated[str | None, typer.Option("--url", envvar="MATINEE_URL", help="a server to ask; by default the one that runs here")]
Catalogue = Annotated[
    str | None, typer.Option("--catalogue", help="the catalogue to ask; by default MATINEE_CATALOGUE, or the server's own")
]
Key = Annotated[str | None, typer.Option("--key", envvar="MATINEE_KEY", help="API key of that server", show_envvar=True)]


@explain_errors()
def search(
    text: Annotated[str, typer.Argument(help="what you look for, in your own words")],
    mode: Annotated[str | None, typer.Option(help="dense (meaning), sparse (words) or hybrid (both)")] = None,
    k: K = 10,
    genre: Genres = None,
    since: Since = None,
    until: Until = None,
    language: Language = None,
    where: Where = None,
    diversity: Diversity = 0.0,
    debug: Debug = False,
    as_json: Json = False,
    catalogue: Catalogue = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Find items by words or meaning.

    [dim]matinee search "a heist inside dreams" --from 2000[/]
    """
    settings, filter, search_mode = load(catalogue), _filter(genre, since, until, language, where), _mode(mode)
    _require(text, "TEXT")
    server = _server(settings, url, key, catalogue, required_by="--debug" if debug else None)
    if server is None:
        answer = offline(settings, catalogue).search(text, mode=search_mode, k=k, filter=filter, diversity=diversity)
    else:
        body = {"text": text, "k": k, "filter": filter.body, "diversity": diversity, "debug": debug}
        answer = server.send(calls.search(body | ({"mode": search_mode} if search_mode else {})))
    _show(answer, as_json)


@explain_errors()
def recommend(
    likes: Annotated[list[str] | None, typer.Argument(help="titles or ids that you like; typos are forgiven")] = None,
    dislike: Annotated[list[str] | None, typer.Option("--dislike", help="a title you don't like; repeatable")] = None,
    text: Annotated[str | None, typer.Option(help="what you are in the mood for")] = None,
    k: K = 10,
    genre: Genres = None,
    since: Since = None,
    until: Until = None,
    language: Language = None,
    where: Where = None,
    diversity: Diversity = 0.0,
    debug: Debug = False,
    as_json: Json = False,
    catalogue: Catalogue = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Recommend items to someone who likes these.

    [dim]matinee recommend Inception "The Matrix" --dislike Titanic[/]
    """
    settings, filter = load(catalogue), _filter(genre, since, until, language, where)
    for title in (*(likes or []), *(dislike or [])):
        _require(title, "a title")
    server = _server(settings, url, key, catalogue, required_by="--debug" if debug else None)
    if server is None:
        answer = offline(settings, catalogue).recommend(likes or [], dislike or [], text=text, k=k, filter=filter, diversity=diversity)
    else:
        body: dict[str, object] = {"likes": likes or [], "dislikes": dislike or [], "k": k, "diversity": diversity, "debug": debug}
        answer = server.send(calls.recommend(body | {"filter": filter.body, "text": text}))
    _show(answer, as_json)


@explain_errors()
def describe(
    title: Annotated[str, typer.Argument(help="an item of the catalogue, by title or id")],
    as_json: Json = False,
    catalogue: Catalogue = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Let the enhancer write a description of an item, checked against its metadata.

    [dim]matinee describe Inception[/]
    """
    settings = load(catalogue)
    server = _server(settings, url, key, catalogue)
    if server is None:
        with err.status("loading the enhancer"):
            answer = offline(settings, catalogue).describe(title)
    else:
        item = server.send(calls.recommend({"likes": [title], "k": 1, "explain": False}))["likes"][0]
        answer = server.send(calls.describe({"id": item["id"]}))
    if as_json:
        print_json(answer)
        return
    out.print(escape(answer["description"]), highlight=False)
    if answer["marked"]:
        err.print(escape(f"marked: {'; '.join(answer['violations'])}"), highlight=False)


@explain_errors()
def info(as_json: Json = False, catalogue: Catalogue = None, url: Url = None, key: Key = None) -> None:
    """What runs or lies here: server, index version, models, limits, what is degraded.

    [dim]matinee info --json[/]
    """
    settings = load(catalogue)
    server = _server(settings, url, key, catalogue)
    answer = offline(settings, catalogue).info() if server is None else {"server": server.url, **server.send(calls.info())}
    if as_json:
        print_json(answer)
        return
    table = Table(show_header=False)
    for name, value in _flat(answer):
        table.add_row(name, escape(value))
    out.print(table)
    if answer["index"] is None and not answer.get("index_trouble"):
        err.print("next: build an index with [bold]matinee ingest FILE[/], or [bold]matinee demo[/]")


def load(catalogue: str | None) -> Settings:
    """The settings, with the catalogue that an option names."""
    return load_settings(flags={"catalogue": catalogue} if catalogue else None)


def offline(settings: Settings, catalogue: str | None) -> OfflineCatalogue:
    """This machine's catalogue. Raises `CatalogueAbsentError` where an option names one that is not here."""
    if catalogue is not None:
        asyncio.run(require_known(settings, load_settings().catalogue))
    return OfflineCatalogue(settings)


def _server(settings: Settings, url: str | None, key: str | None, catalogue: str | None, required_by: str | None = None) -> Client | None:
    """The server to ask; None where this machine's index is to answer. `required_by`: an option that only a server can answer."""
    server = Client.find(settings, url, key)
    if url and server is not None:
        return server if catalogue is None else server.require(settings.catalogue)
    found = None if server is None else server.of(settings.catalogue)
    if found is None and server is not None and not asyncio.run(_lies_here(settings)):
        raise server.absence(settings.catalogue)
    if found is None and required_by is not None:
        raise typer.BadParameter(
            f"{required_by} asks a running server, and none serves {settings.catalogue!r} here: start it, or give --url"
        )
    return found


async def _lies_here(settings: Settings) -> bool:
    """Whether this machine has an index that the server does not serve."""
    return await has_index(await own_settings(settings))


def _filter(genres: list[str] | None, since: int | None, until: int | None, languages: list[str] | None, more: str | None) -> ItemFilter:
    body = {"genres": genres or [], "language": languages or [], "year": {"gte": since, "lte": until}}
    try:
        own = {name: value for name, value in body.items() if value and value != {"gte": None, "lte": None}}
        if more is None:
            return ItemFilter(**own)
        extra = ItemFilter.parse(json.loads(more))
        return ItemFilter(**{"and": [part for part in (own, extra.body) if part]}) if own else extra
    except ValueError as error:
        raise typer.BadParameter(f"--filter: not JSON ({error})") from None
    except FilterError as error:
        where = {"genres": "--genre: ", "language": "--language: "}.get(error.path.partition(".")[0], "")
        raise typer.BadParameter(where + error.problem if where else str(error)) from None


def _require(text: str, name: str) -> None:
    if not text.strip():
        raise typer.BadParameter(f"{name} is empty")


def _mode(mode: str | None) -> Mode | None:
    match mode:
        case None | "dense" | "sparse" | "hybrid":
            return mode
    raise typer.BadParameter(f"{mode!r}: use dense, sparse or hybrid")


def _show(answer: RankedAnswer, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    if not answer["items"]:
        err.print("nothing found: relax the filters, or ask for something else")
        _show_candidates(answer)
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
    _show_candidates(answer)


def _show_candidates(answer: RankedAnswer) -> None:
    """The candidates of a debugged answer, best first before filters: their score in each stage, and their place or what dropped them."""
    if "debug" not in answer:
        return
    stages = answer["debug"]["stages"]
    table = Table("id", "title", *stages, "place or why not", title="candidates before filters and diversity")
    for candidate in answer["debug"]["candidates"]:
        scores = (f"{candidate['scores'][stage]:.3f}" if stage in candidate["scores"] else "" for stage in stages)
        end = str(candidate["rank"]) if "rank" in candidate else ", ".join(candidate["dropped"])
        table.add_row(candidate["id"], escape(candidate["title"] or ""), *scores, end)
    out.print(table)


def _flat(tree: dict[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
