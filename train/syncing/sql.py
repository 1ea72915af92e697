"""A SQL query as a source: its rows become a file of JSON lines, read through SQLAlchemy in one statement and with little memory.

A mark remembers how far the rows of a cursor column have been read. Passwords stand in no message. Does not know what the columns mean.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import orjson
from pydantic import BaseModel, ConfigDict

from matinee.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from sqlalchemy import Engine

MAX_TIES = 100_000
"""Rows at the highest cursor value that are remembered; of more, those are written again that are read again."""
_BATCH = 1000
# A word behind a colon, which SQLAlchemy would take for a parameter.
_PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w)")
_FALSE = frozenset(("", "0", "f", "false", "n", "no", "off"))
_READERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "Decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
}


class Mark(BaseModel):
    """The highest value of the cursor column, and digests of the rows that have it: others may follow with the same one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    text: str
    rows: frozenset[str] = frozenset()

    @property
    def value(self) -> Any:
        return _READERS[self.type](self.text)


@dataclass
class Highest:
    """The highest value seen so far of a cursor column. Rows without a value don't count."""

    column: str
    value: Any = None
    rows: set[str] = field(default_factory=set)

    @classmethod
    def after(cls, column: str, mark: Mark | None) -> Self:
        return cls(column) if mark is None else cls(column, mark.value, set(mark.rows))

    def see(self, value: Any, digest: str) -> None:
        """Raises `SourceError` where the column's values have no order that can be kept."""
        if value is None:
            return
        if type(value).__name__ not in _READERS:
            raise SourceError(
                f"--cursor {self.column}: its values are of the type {type(value).__name__}; name a column of numbers or times"
            )
        try:
            higher = self.value is None or value > self.value
        except TypeError as error:
            raise SourceError(f"--cursor {self.column}: {error}; name a column whose values are all of one type") from None
        if higher:
            self.value, self.rows = value, set()
        if value == self.value and len(self.rows) < MAX_TIES:
            self.rows.add(digest)

    def mark(self) -> Mark | None:
        if self.value is None:
            return None
        text = self.value.isoformat() if isinstance(self.value, date) else str(self.value)
        return Mark(type=type(self.value).__name__, text=text, rows=frozenset(self.rows))


class Export(NamedTuple):
    """What a query gave: `deleted` are the rows that are marked as such, which stand in the file too."""

    columns: tuple[str, ...]
    rows: int
    deleted: list[dict[str, Any]]
    mark: Mark | None


class OtherColumnsError(SourceError):
    """The query gives other columns than before."""


class SqlQuery:
    """A query of a database. Every call raises `SourceError` where the database refuses it, can't be reached, or goes away."""

    def __init__(self, url: str, query: str, *, cursor: str | None = None, deleted: str | None = None) -> None:
        self.cursor = cursor
        self._query, self._deleted = query.strip().rstrip(";"), deleted
        self._engine = _engine(url)
        self.name = self._engine.url.render_as_string(hide_password=True)

    def export(self, path: Path, after: Mark | None = None, columns: tuple[str, ...] | None = None) -> Export:
        """Write the rows to `path`, one a line; with `after` those from its value on, without the ones that it had.

        Raises `OtherColumnsError` where the query gives others than `columns`.
        """
        statement, parameters = self._statement(after)
        highest = Highest.after(self.cursor or "", after)
        deleted: list[dict[str, Any]] = []
        count = 0
        with self._rows(statement, parameters) as (names, rows), path.open("wb") as out:
            self._check(names)
            kept = tuple(name for name in names if name != self._deleted)
            if columns is not None and columns != kept:
                raise OtherColumnsError("the query gives other columns than before")
            for row in rows:
                line = _line({name: row[name] for name in kept})
                flag = row[self._deleted] if self._deleted else None
                digest = hashlib.blake2b(line + repr(flag).encode(), digest_size=16).hexdigest()
                value = row[self.cursor] if self.cursor else None
                if after is not None and value == after.value and digest in after.rows:
                    continue
                if self.cursor:
                    highest.see(value, digest)
                if is_true(flag):
                    deleted.append(orjson.loads(line))
                out.write(line + b"\n")
                count += 1
        if count == 1:
            # One object alone could also be a document that holds rows.
            path.write_bytes(b"[" + path.read_bytes().strip() + b"]")
        return Export(kept, count, deleted, highest.mark())

    def _statement(self, after: Mark | None) -> tuple[str, dict[str, Any]]:
        query = _PARAMETER.sub(r"\\:", self._query)
        if after is None or self.cursor is None:
            return query, {}
        column = self._engine.dialect.identifier_preparer.quote(self.cursor)
        # On lines of its own: the query may end in a comment.
        return f"SELECT * FROM (\n{query}\n) q WHERE q.{column} >= :matinee_after", {"matinee_after": after.value}  # noqa: S608

    @contextmanager
    def _rows(self, statement: str, parameters: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Iterator[Mapping[str, Any]]]]:
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._engine.connect().execution_options(yield_per=_BATCH) as connection:
                result = connection.execute(text(statement), parameters)
                if not result.returns_rows:
                    raise SourceError("--query: it gives no rows; write a SELECT")
                yield tuple(result.keys()), (dict(row) for row in result.mappings())
        except SQLAlchemyError as error:
            # Its own message repeats the statement, and may hold values.
            raise SourceError(f"{self.name}: {self._without_password(getattr(error, 'orig', None) or error)}") from None

    def _check(self, columns: tuple[str, ...]) -> None:
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise SourceError(f"--query: it gives the column {twice[0]!r} twice; name one of them with AS")
        for flag, name in (("--cursor", self.cursor), ("--deleted", self._deleted)):
            if name is not None and name not in columns:
                raise SourceError(f"{flag} {name}: the query gives no such column; it gives {', '.join(columns)}")

    def _without_password(self, error: BaseException) -> str:
        message, password = " ".join(str(error).split()) or type(error).__name__, self._engine.url.password
        return message.replace(str(password), "***") if password else message


def is_true(value: Any) -> bool:
    """Whether a column that marks deleted rows does so: true, 1, yes, or the time of the deletion."""
    return str(value).strip().casefold() not in _FALSE if isinstance(value, str) else bool(value)


def _engine(url: str) -> "Engine":
    try:
        from sqlalchemy import create_engine, make_url
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError
        from sqlalchemy.pool import NullPool
    except ImportError:
        raise SettingsError("--database needs SQLAlchemy: install matinee with its extra `sql`, as in pip install 'matinee[sql]'") from None
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            # The driver of the extra.
            parsed = parsed.set(drivername="postgresql+pg8000")
        return create_engine(parsed, poolclass=NullPool, hide_parameters=True)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        known = f" ({error})" if isinstance(error, NoSuchModuleError) else ""
        raise SettingsError(
            f"--database: not the URL of a database{known}; write it like sqlite:///shop.db or postgresql://USER@HOST/NAME"
        ) from None
    except ImportError as error:
        raise SettingsError(
            f"--database: the driver of {parsed.drivername} is not installed ({error}): install it, or `matinee[sql]` for PostgreSQL"
        ) from None


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(row, default=_plain)
    except TypeError:
        # Integers of more than 64 bits.
        return json.dumps(row, default=_plain).encode()


def _plain(value: Any) -> Any:
    """A value of a database as JSON has it."""
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        whole = value.to_integral_value()
        return int(whole) if whole == value and int(value.as_tuple().exponent) >= 0 else float(value)
    if isinstance(value, memoryview | bytes | bytearray):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    return value.isoformat() if isinstance(value, date) else str(value)
