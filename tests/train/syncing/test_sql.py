"""`train.sync` with SQL: SQLite in a file, compared as a whole or followed by a cursor; no password in any message."""

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from matinee.client.http import Client
from matinee.client.items import Items
from matinee.errors import SettingsError, SourceError
from tests.stored_entries import stored_entries
from train.syncing.sql import Highest, SqlQuery, is_true

Sql = Callable[..., None]
QUERY = "SELECT id, 'film' AS kind, title, overview, genres, updated, gone FROM films"
FOLLOWED = ("--query", QUERY, "--cursor", "updated", "--deleted", "gone")


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'shop.db'}"


@pytest.fixture
def sql(tmp_path: Path, tools: Any) -> Sql:
    """Runs statements; the table has the server's ten films, changed at the time 1."""

    def run(*statements: str) -> None:
        with closing(sqlite3.connect(tmp_path / "shop.db")) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    run("CREATE TABLE films (id TEXT, title TEXT, overview TEXT, genres TEXT, updated INTEGER, gone TEXT)")
    for number in range(tools.BASE):
        run(f"INSERT INTO films VALUES ('f{number}', 'Film {number}', 'The {number}th story.', 'Crime, Organized|Drama', 1, NULL)")
    return run


def state(shop: Any) -> Path:
    [path] = (shop.home / "sync").glob("*.json")
    return Path(path)


def test_a_query_is_compared(shop: Any, tools: Any, database: str, sql: Sql) -> None:
    query = ("--database", database, "--query", "SELECT id, 'film' AS kind, title, overview FROM films;")
    assert tools.counts(shop.sync(*query)) == {"unchanged": 10}
    sql(
        "DELETE FROM films WHERE id = 'f3'",
        "UPDATE films SET title = 'New' WHERE id = 'f4'",
        "INSERT INTO films (id, title) VALUES (11, 'X')",
    )
    assert tools.counts(shop.sync(*query)) == {"written": 2, "deleted": 1, "unchanged": 8}
    assert shop.titles() | {"f4": "New", "11": "X"} == shop.titles()
    assert not list((shop.home / "sync").glob("*.json")), "nothing to remember without a cursor"


def test_a_cursor_reads_what_changed_since(shop: Any, tools: Any, database: str, sql: Sql) -> None:
    followed = ("--database", database, *FOLLOWED)
    first = shop.sync(*followed)
    assert (first["compared"], first["rows"], first["written"]) == (True, 10, 10)
    assert state(shop).stat().st_mode & 0o777 == 0o600
    nothing = shop.sync(*followed)
    assert (nothing["compared"], nothing["rows"], nothing["written"]) == (False, 0, 0)
    # With the same time as the last ones, as a second transaction of the same second has.
    sql("INSERT INTO films VALUES ('f10', 'Tie', 'x', 'Drama', 1, NULL)")
    assert tools.counts(shop.sync(*followed)) == {"written": 1}
    sql("UPDATE films SET title = 'Later', updated = 2 WHERE id = 'f2'")
    later = shop.sync(*followed)
    assert (later["rows"], later["written"]) == (1, 1)
    assert shop.titles()["f2"] == "Later"
    sql("UPDATE films SET gone = '2026-01-01', updated = 3 WHERE id IN ('f5', 'f6')")
    assert tools.counts(shop.sync(*followed)) == {"deleted": 2}
    # One bad row among a few is reported, and does not stop the others.
    sql("UPDATE films SET title = '', updated = 4 WHERE id = 'f7'", "UPDATE films SET title = 'Fine', updated = 4 WHERE id = 'f8'")
    assert tools.counts(shop.sync(*followed)) == {"written": 1, "rejected": 1}
    assert (shop.titles()["f7"], shop.titles()["f8"]) == ("Film 7", "Fine")
    assert not {"f5", "f6"} & shop.titles().keys()
    assert tools.counts(shop.sync(*followed)) == {}


def test_a_few_rows_are_read_as_all_of_them_were(shop: Any, database: str, sql: Sql) -> None:
    """Alone, this row's comma would separate two genres; and one row alone may look like a document that holds others."""
    followed = ("--database", database, *FOLLOWED)
    shop.sync(*followed)
    sql("UPDATE films SET genres = 'Crime, Organized', updated = 2 WHERE id = 'f2'")
    assert shop.sync(*followed)["written"] == 1
    genres = {entry["item"]["id"]: entry["item"]["genres"] for entry in stored_entries(Client(shop.url))}
    assert genres["f2"] == ["Crime, Organized"]
    assert shop.sync(*followed, "--compare-every", 0)["unchanged"] == 10


def test_a_whole_comparison_finds_what_a_cursor_misses(shop: Any, tools: Any, database: str, sql: Sql) -> None:
    followed = ("--database", database, *FOLLOWED)
    shop.sync(*followed)
    # One row is gone, and one was committed late: its time lies before the highest one.
    sql("DELETE FROM films WHERE id = 'f1'", "INSERT INTO films VALUES ('late', 'Late', 'x', 'Drama', 0, NULL)")
    assert tools.counts(shop.sync(*followed)) == {}
    assert tools.counts(shop.sync(*followed, "--compare-every", 0)) == {"written": 1, "deleted": 1, "unchanged": 9}


@pytest.mark.parametrize("lost", ["gone", "broken", "other columns", "other index"])
def test_without_a_state_that_fits_everything_is_compared(lost: str, shop: Any, database: str, sql: Sql) -> None:
    followed = ("--database", database, "--query", "SELECT * FROM films", "--cursor", "updated", "--deleted", "gone", "--kind", "film")
    shop.sync(*followed)
    assert not shop.sync(*followed)["compared"]
    path = state(shop)
    if lost == "gone":
        path.unlink()
    elif lost == "broken":
        path.write_text("{", encoding="utf-8")
    elif lost == "other columns":
        sql("ALTER TABLE films ADD COLUMN colour TEXT")
    else:
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"index": "another"}), encoding="utf-8")
    report = shop.sync(*followed)
    assert (report["compared"], report["unchanged"]) == (True, 10)
    assert not shop.sync(*followed)["compared"]


def test_a_dry_run_remembers_nothing(shop: Any, database: str, sql: Sql) -> None:
    report = shop.sync("--database", database, *FOLLOWED, "--dry-run")
    assert report["written"] == 10
    assert not list((shop.home / "sync").glob("*.json"))


def test_a_database_that_goes_away_in_the_middle_changes_nothing(shop: Any, tools: Any, database: str, sql: Sql) -> None:
    """The error comes with the sixth row, when five have been read."""
    fails = "CASE WHEN id = 'f5' THEN abs(-9223372036854775808) END"
    said = shop.refused("--database", database, "--query", f"SELECT id, 'Changed' AS title, {fails} AS x FROM films ORDER BY id")
    assert "integer overflow" in said


def test_a_query_that_gives_nothing_changes_nothing(shop: Any, database: str, sql: Sql) -> None:
    assert "no usable item" in shop.refused("--database", database, "--query", "SELECT id, title FROM films WHERE 0")
    assert "looks whole" not in shop.refused("--database", database, "--query", "SELECT id, title FROM films LIMIT 3")


def test_what_cant_be_followed_is_explained(shop: Any, database: str, sql: Sql) -> None:
    base = ("--database", database, "--query")
    assert "gives no such column; it gives id, title" in shop.refused(*base, "SELECT id, title FROM films", "--cursor", "updated")
    assert "twice" in shop.refused(*base, "SELECT id, title, title FROM films")
    assert "no such table: books" in shop.refused(*base, "SELECT id FROM books")
    no_id = shop.refused(*base, "SELECT title, updated FROM films", "--cursor", "updated")
    assert "10 rows have none" in no_id
    assert "--map id=COLUMN" in shop.refused(*base, "SELECT title, 1 AS gone FROM films", "--deleted", "gone")


def test_options_that_belong_together_are_named(shop: Any, tmp_path: Path) -> None:
    for arguments, message in (
        ((), "name one source"),
        (("films.csv", "--query", "SELECT 1"), "name one source"),
        (("--query", "SELECT 1"), "--query needs --database, or MATINEE_DATABASE"),
        (("films.csv", "--cursor", "x"), "--cursor and --deleted name columns of a query"),
        (("films.csv", "--metrics-port", "0"), "add --every"),
        (("--query", "SELECT 1", "--database", "nonsense"), "not the URL of a database"),
        (("--query", "SELECT 1", "--database", "nosuch://user:hidden@host/x"), "not the URL of a database"),
    ):
        done = shop.invoke(*arguments)
        assert done.exit_code == 2, done.output
        assert message in done.stderr
        assert "hidden" not in done.output


def test_no_message_holds_the_password(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://shop:s3cr3t-word@127.0.0.1:1/shop"
    done = shop.invoke("--query", "SELECT 1 AS id", MATINEE_DATABASE=url)
    assert done.exit_code == 3, done.output
    assert "postgresql+pg8000://shop:***@127.0.0.1:1/shop" in done.stderr
    assert "s3cr3t-word" not in done.output + done.stderr


def test_a_missing_package_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(SettingsError, match=r"matinee\[sql\]"):
        SqlQuery("sqlite://", "SELECT 1")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "pg8000", None)
    with pytest.raises(SettingsError, match=r"driver of postgresql\+pg8000 is not installed"):
        SqlQuery("postgresql://shop@host/shop", "SELECT 1")


def test_signs_of_a_query_stay_what_they_are(database: str, tmp_path: Path, sql: Sql) -> None:
    query = SqlQuery(database, "SELECT id, ':word %s 12:30 %(x)s' AS title, updated FROM films -- the end", cursor="updated")
    first = query.export(tmp_path / "rows.jsonl")
    assert first.rows == 10
    assert json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])["title"] == ":word %s 12:30 %(x)s"
    assert query.export(tmp_path / "rows.jsonl", first.mark).rows == 0


def test_marks_keep_every_kind_of_cursor() -> None:
    for low, high in (
        (1, 2),
        (1.5, 1.75),
        ("a", "b"),
        (Decimal("1.10"), Decimal("1.20")),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
    ):
        highest = Highest("x")
        for value in (None, high, low):
            highest.see(value, str(value))
        mark = highest.mark()
        assert mark is not None
        assert (mark.value, mark.rows) == (high, {str(high)})
        assert type(mark.value) is type(high)
    assert Highest("x").mark() is None
    with pytest.raises(SourceError, match="numbers or times"):
        Highest("x").see(b"1", "")
    mixed = Highest("x", 1)
    with pytest.raises(SourceError, match="of one type"):
        mixed.see("a", "")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, False),
        (0, False),
        (False, False),
        ("f", False),
        (" No ", False),
        ("", False),
        (1, True),
        ("t", True),
        ("2026-01-01", True),
        (datetime(2026, 1, 1, tzinfo=UTC), True),
    ],
)
def test_what_marks_a_deleted_row(value: object, expected: bool) -> None:
    assert is_true(value) is expected


def test_where_others_wrote_meanwhile_the_rows_are_read_again(
    shop: Any, tools: Any, database: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = ("--database", database, *FOLLOWED)
    shop.sync(*followed)
    sql("UPDATE films SET title = 'Mine', updated = 2 WHERE id = 'f2'")
    start = Items.start_import

    def slow(self: Items, lines: Any) -> Any:
        # The import is asked for, and before it is worked on, somebody else writes: as if that came first.
        report = start(self, lines)
        return report.model_copy(update={"skipped": 1, "status": "done"})

    with monkeypatch.context() as patch:
        patch.setattr(Items, "start_import", slow)
        assert shop.sync(*followed)["skipped"] == 1
    assert shop.sync(*followed)["rows"] == 1, "not remembered as done"
