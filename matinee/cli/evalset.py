"""`matinee evalset make`: an evaluation set out of a user's own events, or of a field that is kept out of the embedded text.

Labels that come from the embedded text reward a model for finding its own text again, so this makes none of those.
The sets are made in `evaluation.query_sets`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from matinee.cli.errors import explain_errors
from matinee.cli.output import err
from matinee.errors import SettingsError, SourceError
from matinee.evaluation import query_sets
from matinee.evaluation.splits import Entry, Split, read_entries
from matinee.events import with_impressions
from matinee.files import user_path

evalset_app = typer.Typer(no_args_is_help=True, help="Evaluation sets of your own: from events, or from a field.")

_USER, _ITEM, _TEXT = ("user", "user_id"), ("item", "item_id", "id"), ("text", "query")
_LIKED = (None, "like", "liked")
_CHOSEN = (None, "click", "clicked", "like", "liked")


@evalset_app.callback()
def evalset() -> None:
    """Keeps `make` a command of its own name, also while it is the only one."""


@evalset_app.command("make")
@explain_errors()
def make(
    prepared: Annotated[Path, typer.Argument(help="the folder of train.prepare: items and their split")],
    out: Annotated[Path, typer.Option(help="folder of sets; the new one is a folder in it")] = Path("work/sets"),
    likes: Annotated[str | None, typer.Option(help="events.uri, or JSONL of user and item: which items the same people liked")] = None,
    clicks: Annotated[
        str | None,
        typer.Option(help="events.uri (with serving.log_texts), or JSONL of text and item: what people searched for and then chose"),
    ] = None,
    field: Annotated[str | None, typer.Option(help="a field of extra or people that is not embedded, e.g. keywords")] = None,
    least: Annotated[int | None, typer.Option(min=1, help="people (likes: 5) or choices (clicks: 2) that make a label")] = None,
    without_key: Annotated[
        list[str] | None, typer.Option(help="repeatable: leave out events that this API key sent, by its name in serving.keys")
    ] = None,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="count events that came without an API key too: whoever reached the server could send them")
    ] = False,
) -> None:
    """Make a set that `train.evaluate` measures with, and whose training side `train.triplets` learns from.

    [dim]matinee evalset make work/prepared --likes likes.jsonl --out work/sets[/]
    """
    prepared, out = user_path(prepared), user_path(out)
    name, counts = _make(prepared, out, likes, clicks, field, least, _Senders(frozenset(without_key or ()), keyless))
    sizes = ", ".join(f"{count} {split}" for split, count in counts.items())
    after = f"python -m train.evaluate {prepared} --sets {out}"
    err.print(f"{escape(str(out / name))}: {sizes} queries; next: [bold]{escape(after)}[/]", soft_wrap=True)


@dataclass(frozen=True)
class _Senders:
    """Whose events of a server's log count: not those of the keys `without`, and those without any key only if `keyless`."""

    without: frozenset[str]
    keyless: bool

    def count(self, event: Mapping[str, Any]) -> bool:
        key = event.get("key")
        return self.keyless if key is None else key not in self.without


def _make(
    prepared: Path, out: Path, likes: str | None, clicks: str | None, field: str | None, least: int | None, senders: _Senders
) -> tuple[str, dict[Split, int]]:
    if sum(source is not None for source in (likes, clicks, field)) != 1:
        raise SettingsError("give one of --likes EVENTS, --clicks EVENTS and --field NAME")
    entries = read_entries(prepared)
    if likes is not None:
        sets = query_sets.from_colikes(entries, _events(likes, entries, _USER, _LIKED, senders), least=least or 5)
    elif clicks is not None:
        sets = query_sets.from_clicks(entries, _events(clicks, entries, _TEXT, _CHOSEN, senders), least=least or 2)
    else:
        sets = query_sets.from_field(entries, field or "")
    counts = {split: len(queries.relevant) for split, queries in sets.items()}
    if not any(counts.values()):
        hint = "" if senders.keyless or field else "; events that came without an API key don't count, unless you add --keyless"
        raise SourceError(
            f"nothing to make a set of: too few events about items of this catalogue, or too few items that share a value{hint}"
        )
    name = next(iter(sets.values())).name
    query_sets.write_set(out, name, sets)
    return name, counts


def _events(
    uri: str, entries: Sequence[Entry], keys: tuple[str, ...], kinds: tuple[str | None, ...], senders: _Senders
) -> Iterator[tuple[str, str]]:
    """(user or text, item) of each event that counts. What our own event log holds without a user or a text says nothing here."""
    ids: dict[str, dict[str, str]] = {}
    for where, event in with_impressions(uri):
        if event.get("event") not in kinds:
            continue
        catalogue = event.get("catalogue")
        if catalogue is not None and not senders.count(event):
            continue
        if catalogue is not None and all(event.get(name) is None for name in keys):
            continue
        try:
            key, item = _cell(event, keys), _cell(event, _ITEM)
        except KeyError as error:
            raise SourceError(f"{where}: {error}: each line is a JSON object with {keys[0]} and item") from None
        if catalogue is not None:
            # Our log names items by their ids in the index.
            if catalogue not in ids:
                ids[catalogue] = {entry.item.uid(catalogue): entry.id for entry in entries}
            item = ids[catalogue].get(item, item)
        yield key, item


def _cell(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        if row.get(name) is not None:
            return str(row[name])
    raise KeyError(f"no {names[0]}")
