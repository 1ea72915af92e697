"""A sync against a server that has no index yet: it makes the first one, with attributes of what the source has."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from matinee.client import calls
from matinee.client.http import Client
from matinee.client.items import Items


@pytest.fixture
def empty(tools: Any, local_graph: Any, tmp_path: Path) -> Iterator[Any]:
    """A server without an index."""
    with local_graph.serve_app(lambda: local_graph.build_local_graph(tmp_path / "empty", films=[])) as url:
        yield tools.Shop(url, tmp_path / "home")


def test_the_first_sync_makes_the_index(empty: Any, tools: Any, write: Callable[..., Path]) -> None:
    rows = [tools.film(n, numbers={"price": 9.5 + n}, extra={"shelf": f"s{n % 2}"}) for n in range(6)]
    source = write(rows)
    assert "no usable item" in empty.invoke(write([{"title": ""}], "none.jsonl"), "--max-rejected", "1").stderr
    assert Client(empty.url).send(calls.info())["index"] is None
    assert tools.counts(empty.sync(source, "--dry-run")) == {"written": 6}
    assert Client(empty.url).send(calls.info())["index"] is None
    assert tools.counts(empty.sync(source)) == {"written": 6}
    index = Client(empty.url).send(calls.info())["index"]
    assert index is not None
    assert {"genres", "price", "shelf"} <= index["attributes"].keys()
    found = Client(empty.url).send(calls.search({"text": "story", "filter": {"price": {"gt": 13}}, "mode": "sparse"}))
    assert {card["item"]["id"] for card in found["items"]} == {"f4", "f5"}
    report = empty.sync(write([*rows[:5], tools.film(9)]), "--max-deleted", "0.5")
    assert tools.counts(report) == {"written": 1, "deleted": 1, "unchanged": 5}


def test_a_query_with_a_cursor_goes_on_from_the_index_that_it_made(empty: Any, tools: Any, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE films (id TEXT, title TEXT, updated INTEGER)")
        connection.executemany("INSERT INTO films VALUES (?, ?, ?)", [(f"f{n}", f"Film {n}", n) for n in range(4)])
    options = ("--database", f"sqlite:///{path}", "--query", "SELECT * FROM films", "--cursor", "updated")
    assert tools.counts(empty.sync(*options)) == {"written": 4}
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO films VALUES ('f9', 'Film 9', 9)")
    report = empty.sync(*options)
    assert (report["compared"], report["written"]) == (False, 1)


def test_what_was_created_before_keeps_its_attributes(empty: Any, tools: Any, write: Callable[..., Path]) -> None:
    server = Client(empty.url)
    server.send(calls.create_index({"shelf": {"type": "keyword", "source": "extra.shelf"}}))
    Items(server).put([json.dumps(tools.film(1)).encode()])
    assert tools.counts(empty.sync(write([tools.film(1), tools.film(2)]))) == {"written": 1, "unchanged": 1}
    index = server.send(calls.info())["index"]
    assert index is not None
    assert [*index["attributes"]] == ["shelf"]
