"""Columns: which column of a catalogue is an item's title, overview, year and so on, by its name or by the user's mapping.

Names are compared without case and separators, so `Release_Date`, `releaseDate` and `release date` are one. A target is a field of `Item`
(`title`), or a place in one of its mappings (`people.director`, `numbers.rating`, `extra.poster_url`). Does not look into the cells.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from matinee import languages
from matinee.characters import normalize
from matinee.errors import SourceError

_WORDS = languages.catalogue_words()
YEARS_OUTSIDE_IDS = _WORDS.years_outside_ids
SYNONYMS: dict[str, tuple[str, ...]] = {
    **_WORDS.columns,
    "year": _WORDS.columns["year"] + YEARS_OUTSIDE_IDS,
    **{f"people.{role}": names for role, names in _WORDS.roles.items()},
}
"""Target -> the names of columns that fit it, best first."""
# `Star1`, `actor_2_name`: several columns of one list.
_NUMBERED = re.compile(rf"({'|'.join(_WORDS.numbered)})[1-9](?:name)?")

FIELDS = ("title", "overview", "genres", "year", "language", "id", "kind")
GROUPS = ("people", "numbers", "extra")
_SHORT = {"rating": "numbers.rating", "votes": "numbers.votes", "popularity": "numbers.popularity"} | {
    role: f"people.{role}" for role in _WORDS.roles
}
HAS_TITLE = 100
"""The least score of `recognised` for columns of which one is the title."""
# What pandas writes for the numbers of rows.
_ROW_NUMBERS = re.compile(r"Unnamed: \d+(?:_level_\d+)?|__index_level_\d+__|level_0")
_KEY = re.compile(r"[a-z][a-z0-9_]{0,39}")


def squash(name: str) -> str:
    """A name without case, accents and separators."""
    return re.sub(r"[\W_]", "", normalize("NFKD", name).casefold())


def key(name: str) -> str:
    """A column's name as a key of `numbers` or `extra`."""
    ascii_name = normalize("NFKD", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"[^a-z0-9]+", "_", ascii_name).strip("_")
    return (plain if plain[:1].isalpha() else f"column_{plain}".rstrip("_"))[:40]


def count_recognised(columns: Sequence[str], mapping: Mapping[str, str] | None = None) -> int:
    """How well these names are known: what tells a header from a row, and one delimiter from another."""
    mapped_names = {squash(column) for column in (mapping or {}).values()}
    squashed = {squash(name) for name in _without_table(columns).values()}
    hits = sum(any(name in squashed for name in names) for names in SYNONYMS.values())
    mapped = len(squashed & mapped_names)
    return hits + 10 * mapped + (HAS_TITLE if _suits_title(columns) else 0)


def _suits_title(columns: Sequence[str]) -> bool:
    names = _without_table(columns).values()
    return any(squash(name) in (*SYNONYMS["title"], *_WORDS.late_titles) or _is_some_title(name) for name in names)


def _is_some_title(column: str) -> bool:
    return len(column) < 40 and re.fullmatch(r"\w+(?:[_ -][tT]itle|Title)", column) is not None


def assign(columns: Sequence[str], mapping: Mapping[str, str] | None, warnings: list[str]) -> dict[str, str]:
    """Column to target, for every column. Raises `SourceError` for a mapping that fits nothing, or when no column is the title."""
    chosen: dict[str, str] = {}
    off: set[str] = set()
    for requested, column in (mapping or {}).items():
        target = _target(requested)
        off.add(target)
        if column:
            match = _find(column, columns, requested)
            if match in chosen or target in chosen.values():
                raise SourceError(f"--map {requested}={column}: this column or this target is already mapped")
            chosen[match] = target
    plain = _without_table(columns)
    squashed = [(squash(plain[column]), column) for column in columns]
    for target, names in SYNONYMS.items():
        fits = [column for name in names for short, column in squashed if short == name and column not in chosen]
        if target not in off and fits:
            chosen[fits[0]] = target
            if len(fits) > 1:
                warnings.append(f"column {fits[0]!r} was taken as {target}; {_quote(fits[1:])} would fit too: choose with --map")
    if "title" not in chosen.values():
        late = [column for name in _WORDS.late_titles for short, column in squashed if short == name and column not in chosen]
        _add_some_title(columns, chosen, off, late)
    _add_first_id(columns, chosen, off)
    _add_numbered(squashed, chosen, off)
    return chosen | _others(columns, plain, chosen)


def _add_numbered(squashed: Sequence[tuple[str, str]], chosen: dict[str, str], off: set[str]) -> None:
    taken = {*chosen.values(), *off}
    for short, column in squashed:
        match = _NUMBERED.fullmatch(short)
        target = _WORDS.numbered[match[1]] if match else ""
        if match and target not in taken and column not in chosen:
            chosen[column] = target


def _without_table(columns: Sequence[str]) -> dict[str, str]:
    """Column to name without the table's name in front, as Hive writes all of them: `films.title`."""
    tables = {column.rpartition(".")[0] for column in columns}
    prefix = tables.pop() if len(tables) == 1 and len(columns) > 1 else ""
    return {column: column.removeprefix(f"{prefix}.") if prefix else column for column in columns}


def _add_some_title(columns: Sequence[str], chosen: dict[str, str], off: set[str], late: Sequence[str]) -> None:
    titles = [column for column in columns if _is_some_title(column) and column not in chosen] or late[:1]
    if len(titles) != 1 or "title" in off:
        data = " The first line looks like data, not like a header: add one." if _looks_like_data(columns) else ""
        raise SourceError(f"no column is the title; the columns are {_quote(columns)}: pass --map title=COLUMN.{data}")
    chosen[titles[0]] = "title"


def _add_first_id(columns: Sequence[str], chosen: dict[str, str], off: set[str]) -> None:
    """A first column such as `bookId` or `book_id` is the rows' id; elsewhere such a column points at something else."""
    free = columns and "id" not in chosen.values() and "id" not in off and columns[0] not in chosen
    if free and re.search(r"(?:[_ -][iI][dD]|[a-z]I[dD])$", columns[0]):
        chosen[columns[0]] = "id"


def _others(columns: Sequence[str], plain: Mapping[str, str], chosen: dict[str, str]) -> dict[str, str]:
    taken = {target.partition(".")[2] for target in chosen.values()}
    others = {}
    numbers: dict[str, Iterator[int]] = {}
    for column in columns:
        if column and column not in chosen and not _ROW_NUMBERS.fullmatch(column):
            name = key(plain[column])
            if name in taken:
                base = name[:36]
                name = next(one for n in numbers.setdefault(base, count(2)) if (one := f"{base}_{n}") not in taken)
            taken.add(name)
            others[column] = f"other.{name}"
    return others


def _target(requested: str) -> str:
    name = requested.strip().casefold()
    if name in FIELDS:
        return name
    if name in _SHORT:
        return _SHORT[name]
    group, _, rest = name.replace("_", ".", 1).partition(".") if name.startswith(tuple(f"{g}_" for g in GROUPS)) else name.partition(".")
    if group in GROUPS and _KEY.fullmatch(rest):
        return f"{group}.{rest}"
    raise SourceError(
        f"--map {requested}=...: there is no target {requested!r}; use {', '.join(FIELDS)}, {', '.join(_SHORT)}, "
        "or people.ROLE, numbers.NAME, extra.NAME"
    )


def _find(column: str, columns: Sequence[str], requested: str) -> str:
    if column in columns:
        return column
    near = [name for name in columns if squash(name) == squash(column)]
    if len(near) != 1:
        raise SourceError(f"--map {requested}={column}: there is no column {column!r}; the columns are {_quote(columns)}")
    return near[0]


def _looks_like_data(columns: Sequence[str]) -> bool:
    return any(len(c) > 60 or re.fullmatch(r"[-+]?\d[\d.,/-]*", c.strip()) or "://" in c for c in columns if c)


def _quote(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:40])
    return shown + (f" and {len(names) - 40} more" if len(names) > 40 else "")
