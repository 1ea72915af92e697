"""A server over ten items, and `train.sync` run against it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from matinee.client.http import Client
from matinee.client.items import Items
from matinee.items import Item
from tests.stored_entries import stored_entries
from tests.waiting import until
from train.sync import app
from train.syncing import round as rounds

BASE = 10


def film(number: int, **facts: Any) -> dict[str, Any]:
    return {"id": f"f{number}", "kind": "film", "title": f"Film {number}", "overview": f"The {number}th story.", **facts}


@dataclass
class Shop:
    """The server, and the command against it."""

    url: str
    home: Path

    def titles(self) -> dict[str, str]:
        """Of all items, by their own id."""
        return {entry["item"]["id"]: entry["item"]["title"] for entry in stored_entries(Client(self.url))}

    def invoke(self, *arguments: object, **environment: str) -> Any:
        env = {"MATINEE_HOME": str(self.home), "MATINEE_URL": self.url, "COLUMNS": "200", **environment}
        return CliRunner().invoke(app, [*map(str, arguments), "--json", "--patience", "1"], env=env)

    def sync(self, *arguments: object, **environment: str) -> dict[str, Any]:
        """The report of a round that succeeds."""
        done = self.invoke(*arguments, **environment)
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.stdout))

    def refused(self, *arguments: object, **environment: str) -> str:
        """What a round says that changes nothing."""
        before = self.titles()
        done = self.invoke(*arguments, **environment)
        assert done.exit_code == 3, done.output
        assert self.titles() == before
        return str(done.stderr)


def counts(report: dict[str, Any]) -> dict[str, int]:
    """The numbers of a report that are not 0."""
    return {name: report[name] for name in ("written", "deleted", "unchanged", "rejected", "skipped") if report[name]}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_LOOK_S", 0.02)


@pytest.fixture(scope="session")
def url(local_graph: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server that all tests share."""
    home, films = tmp_path_factory.mktemp("shop"), [Item.model_validate(film(number)) for number in range(BASE)]
    with local_graph.serve_app(lambda: local_graph.build_local_graph(home, films=films)) as url:
        yield url


@pytest.fixture
def shop(url: str, tmp_path: Path) -> Shop:
    """With the ten items, whatever tests before made of them."""
    items = Items(Client(url))
    until(lambda: all(state.is_over for state in items.imports()), "no import of another test is open")
    base = {item.uid("demo"): item.facts() for item in (Item.model_validate(film(number)) for number in range(BASE))}
    stored = {entry["id"]: entry["item"] for entry in stored_entries(Client(url))}
    if gone := sorted(stored.keys() - base.keys()):
        items.delete(gone)
    items.put([json.dumps(facts).encode() for uid, facts in base.items() if stored.get(uid) != facts])
    return Shop(url, tmp_path / "home")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a catalogue file of JSON lines."""

    def write(films: list[dict[str, Any]], name: str = "films.jsonl") -> Path:
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(film) + "\n" for film in films), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def tools() -> Any:
    """`film`, `counts` and `BASE` for the test modules: `tests/` is no package."""
    import sys

    return sys.modules[__name__]
