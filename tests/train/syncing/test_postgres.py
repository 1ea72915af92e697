"""`train.sync` with a real PostgreSQL: its types, a cursor of times, deleted rows, and a server that dies while it is read.

`test_sql.py` has the same paths with SQLite.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from matinee.errors import SourceError
from train.syncing import sql
from train.syncing.sql import SqlQuery

pytestmark = pytest.mark.full

PASSWORD = "a-made-up-word"
ROWS = 5000
MADE = f"""
CREATE TABLE films (id bigint PRIMARY KEY, title text, overview text, genres text[], rating numeric(3, 1), facts jsonb,
                    updated timestamptz NOT NULL, gone boolean NOT NULL DEFAULT false);
INSERT INTO films SELECT n, 'Film ' || n, 'The ' || n || 'th story.', ARRAY['Drama', 'Crime, Organized'], 6.5, '{{"colour": "blue"}}',
                         '2026-01-01 12:00:00+00'::timestamptz FROM generate_series(1, {ROWS}) AS n;
"""
FOLLOWED = ("--query", "SELECT *, 'film'::text AS kind FROM films", "--cursor", "updated", "--deleted", "gone")


def programs() -> Path | None:
    """The folder of Debian's programs, which are not on the PATH."""
    found = shutil.which("initdb")
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *([Path(found).resolve().parent] if found else [])]
    return next((folder for folder in folders if (folder / "initdb").is_file() and (folder / "pg_ctl").is_file()), None)


@dataclass
class Postgres:
    folder: Path
    programs: Path

    @property
    def url(self) -> str:
        return f"postgresql://shop:{PASSWORD}@/postgres?unix_sock={self.folder}/.s.PGSQL.5432"

    def call(self, program: str, *arguments: str) -> None:
        # It refuses to run as root.
        user = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        subprocess.run([self.programs / program, *arguments], check=True, cwd=self.folder, stdout=subprocess.DEVNULL, **user)

    def run(self, statements: str) -> None:
        engine = create_engine(self.url.replace("postgresql:", "postgresql+pg8000:"), poolclass=NullPool)
        with engine.begin() as connection:
            for statement in filter(str.strip, statements.split(";")):
                connection.execute(text(statement.replace(":", r"\:")))

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off"
        self.call("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-o", options, "-w", "start")

    def kill(self) -> None:
        self.call("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    found = programs()
    if found is None:
        assert not os.environ.get("CI"), "initdb and pg_ctl of Debian's package postgresql are missing"
        pytest.skip("needs initdb and pg_ctl: install Debian's package postgresql")
    folder = Path(tempfile.mkdtemp(prefix="matinee-pg-"))
    try:
        (folder / "password").write_text(PASSWORD, encoding="utf-8")
        if os.getuid() == 0:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres", "postgres")
        server = Postgres(folder, found)
        server.call("initdb", "-D", f"{folder}/data", "-U", "shop", "-A", "scram-sha-256", f"--pwfile={folder}/password", "-E", "UTF8")
        server.start()
        try:
            server.run(MADE)
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_table_is_followed(shop: Any, tools: Any, postgres: Postgres) -> None:
    few = ("--query", "SELECT *, 'film'::text AS kind FROM films WHERE id <= 20 OR id > 5000", *FOLLOWED[2:])
    database = {"MATINEE_DATABASE": postgres.url}
    first = shop.sync(*few, "--max-deleted", 1, **database)
    assert (first["rows"], first["written"], first["deleted"]) == (20, 20, 10)
    assert tools.counts(shop.sync(*few, "--max-deleted", 1, **database)) == {}
    assert tools.counts(shop.sync(*few, "--compare-every", 0, **database)) == {"unchanged": 20}
    from matinee.client.http import Client
    from tests.stored_entries import stored_entries

    [item] = [entry["item"] for entry in stored_entries(Client(shop.url)) if entry["item"]["id"] == "7"]
    assert (item["genres"], item["numbers"]["rating"], item["extra"]["facts"]) == (["Drama", "Crime, Organized"], 6.5, '{"colour": "blue"}')
    postgres.run(
        "INSERT INTO films SELECT 6001, 'Tie', 'x', NULL, NULL, NULL, updated FROM films WHERE id = 1;"
        "UPDATE films SET title = 'Later', updated = now() WHERE id = 2; UPDATE films SET gone = true, updated = now() WHERE id = 3"
    )
    assert tools.counts(shop.sync(*few, **database)) == {"written": 2, "deleted": 1}
    assert tools.counts(shop.sync(*few, **database)) == {}
    postgres.run("DELETE FROM films WHERE id = 4")
    assert tools.counts(shop.sync(*few, "--compare-every", 0, **database)) == {"deleted": 1, "unchanged": 19}


def test_a_server_that_dies_in_the_middle_changes_nothing(
    shop: Any, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines, write = 0, sql._line

    def dies(row: Any) -> bytes:
        nonlocal lines
        lines += 1
        if lines == 1500:
            postgres.kill()
        return write(row)

    monkeypatch.setattr(sql, "_line", dies)
    said = shop.refused(*FOLLOWED, MATINEE_DATABASE=postgres.url)
    assert 1500 <= lines < ROWS, "the rows come in batches"
    assert "postgresql+pg8000://shop:***@" in said
    assert PASSWORD not in said
    refused = shop.refused(*FOLLOWED, MATINEE_DATABASE=postgres.url)
    assert "postgresql+pg8000://shop:***@" in refused


def test_a_wrong_password_is_not_repeated(postgres: Postgres, tmp_path: Path) -> None:
    wrong = SqlQuery(postgres.url.replace(PASSWORD, "another-word"), "SELECT 1 AS id")
    with pytest.raises(SourceError, match="authentication failed") as refused:
        wrong.export(tmp_path / "rows.jsonl")
    assert "another-word" not in str(refused.value)
