"""Folders: the catalogue files of one, read as a single table. Does not open files (`tables`) and does not know what a column means."""

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Literal

from matinee.catalogue.rows import Reject, Row, Table
from matinee.errors import SourceError

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
"""Files of a folder that are read, also with .gz behind."""
# What programs put beside their data: marks such as _SUCCESS, partial uploads, and the rejects of an ingest.
_BESIDE = (".*", "_*", "*.rejects.jsonl")


class NoRowsError(SourceError):
    """A file of a known kind that has no rows. A folder may have such files among others: Spark writes them."""


def is_catalogue(path: str) -> bool:
    """Whether a file inside of a folder is one of the catalogue's. No part of its path is hidden."""
    parts = PurePosixPath(path.lstrip("/")).parts
    return not any(map(is_beside, parts)) and PurePosixPath(parts[-1].lower().removesuffix(".gz")).suffix in SUFFIXES


def is_beside(name: str) -> bool:
    """Whether a file of that name is no data."""
    return any(fnmatchcase(name, pattern) for pattern in _BESIDE)


class FolderTable:
    """The files of a folder, one after the other by their names. They are of one kind, and a file may lack columns of another."""

    def __init__(self, path: Path, open_part: Callable[[Path], Table]) -> None:
        self._parts: dict[str, Table] = {}
        self.notes: list[str] = []
        names = sorted(found.relative_to(path).as_posix() for found in path.rglob("*") if found.is_file())
        empty: list[str] = []
        for name in filter(is_catalogue, names):
            try:
                self._parts[name] = open_part(path / name)
            except NoRowsError:
                empty.append(name)
        if not self._parts:
            what = f"{len(empty)} catalogue files, and none has rows" if empty else f"no catalogue file ({', '.join(SUFFIXES)}; also .gz)"
            raise SourceError(f"{path} is a folder with {what}: check the path, or name hub:{path} if `datasets` can load it")
        self._require_one_kind(path)
        first = next(iter(self._parts.values()))
        self.unit: Literal["bytes", "rows"] = first.unit
        self.delimiter: str | None = first.delimiter
        self.format = first.format | {"files": str(len(self._parts))}
        self.total = sum(part.total for part in self._parts.values())
        self.columns = tuple(dict.fromkeys(column for part in self._parts.values() for column in part.columns))
        self.notes += [f"{name}: {note}" for name, part in self._parts.items() for note in part.notes]
        if empty:
            self.notes.append(f"{len(empty)} files have no rows, the first is {empty[0]}")
        self._note_missing_columns()

    def _require_one_kind(self, path: Path) -> None:
        kinds: dict[tuple[str, str | None], str] = {}
        for name, part in self._parts.items():
            # A file of one JSON line is also a JSON document.
            kinds.setdefault((part.format["kind"].partition(" ")[0], part.format.get("delimiter")), name)
        if len(kinds) > 1:
            written = ", ".join(f"{name} is {' with '.join(filter(None, kind))}" for kind, name in kinds.items())
            raise SourceError(f"{path} holds files of several kinds ({written}): name one kind by a pattern, such as '{path}/*.csv'")

    def _note_missing_columns(self) -> None:
        lacking = {name: missing for name, part in self._parts.items() if (missing := _missing(self.columns, part.columns))}
        if lacking:
            name, missing = next(iter(lacking.items()))
            self.notes.append(f"{len(lacking)} files lack columns that others have, the first is {name}: {', '.join(missing[:5])}")

    def rows(self, progress: Callable[[int], None]) -> Iterator[Row | Reject]:
        behind = 0
        for name, part in self._parts.items():
            for row in part.rows(lambda done, behind=behind: progress(behind + done)):  # type: ignore[misc]
                if isinstance(row, Row):
                    yield Row(row.line, row.values, row.repaired, name)
                else:
                    yield Reject(row.line, row.reason, row.raw, row.cut, row.id, name)
            behind += part.total


def _missing(all_columns: Sequence[str], columns: Sequence[str]) -> list[str]:
    return [column for column in all_columns if column not in columns]
