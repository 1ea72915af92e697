"""`train.describe`: a sample by seed, what the sets look for first, one description an item whatever happened, and no mixing of models."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from matinee.errors import SettingsError
from matinee.evaluation.query_sets import read_set, set_names
from matinee.evaluation.splits import read_entries
from matinee.items import Item
from matinee.settings.load import load_settings
from train import describe
from train.generation import describing
from train.generation.selection import ranked_sample
from train.ingesting.plan import EngineOptions


class FakeEnhancer:
    """Describes an item by its title; `stop_at` interrupts it before that batch."""

    def __init__(self) -> None:
        self.told: list[Item] = []
        self.batches = 0
        self.stop_at: int | None = None
        self.adapter: str | None = None

    def info(self) -> dict[str, Any]:
        return {"model": "fake", "digest": "a" * 64, "adapter_digest": self.adapter}

    def write(self, items: Sequence[Item]) -> list[str]:
        if self.batches == self.stop_at:
            raise KeyboardInterrupt
        self.batches += 1
        self.told += items
        return [f"About {item.title}." for item in items]

    def describe(self, items: Sequence[Item]) -> list[Any]:
        return [SimpleNamespace(text=text, source="model", violations=()) for text in self.write(items)]


@pytest.fixture
def enhancer(monkeypatch: pytest.MonkeyPatch) -> FakeEnhancer:
    fake = FakeEnhancer()

    def load(settings: Any, *_: Any, **__: Any) -> FakeEnhancer:
        fake.adapter = settings.adapter
        return fake

    monkeypatch.setattr(describing, "Enhancer", SimpleNamespace(load=load))
    return fake


def run(*args: object) -> Result:
    return CliRunner().invoke(describe.app, [str(arg) for arg in args])


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_item_is_described_once(enhancer: FakeEnhancer, prepared: Path, tmp_path: Path) -> None:
    result = run(prepared, "--out", tmp_path / "d.jsonl")
    assert result.exit_code == 0, result.output
    found = rows(tmp_path / "d.jsonl")
    entries = {entry.id: entry for entry in read_entries(prepared)}
    assert sorted(row["id"] for row in found) == sorted(entries)
    assert all(row["description"] == f"About {entries[row['id']].item.title}." and row["source"] == "model" for row in found)
    assert enhancer.batches == -(-len(entries) // (48 * describing.BATCHES))


def test_a_stopped_run_goes_on_and_a_cut_line_is_written_again(enhancer: FakeEnhancer, prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    enhancer.stop_at = 2
    assert run(prepared, "--out", out, "--batch", 2, "--sample", 50).exit_code == 130
    out.write_text(out.read_text() + '{"id": "half')
    enhancer.stop_at = None
    assert run(prepared, "--out", out, "--batch", 2, "--sample", 50).exit_code == 0
    found = [row["id"] for row in rows(out)]
    assert len(found) == len(set(found)) == len(enhancer.told) == 50


def test_titles_are_asked_for_as_people_write_them(enhancer: FakeEnhancer, prepared: Path, tmp_path: Path) -> None:
    some = read_entries(prepared)[7]
    assert run(prepared, "--out", tmp_path / "d.jsonl", "--title", some.item.title.upper()).exit_code == 0
    assert [row["id"] for row in rows(tmp_path / "d.jsonl")] == [some.id]
    result = run(prepared, "--out", tmp_path / "e.jsonl", "--title", some.item.title, "--title", "No Such Film")
    assert result.exit_code == SettingsError.exit_code
    assert "--title No Such Film: no item has that title" in " ".join(result.stderr.split())


def test_another_model_never_writes_into_the_same_file(enhancer: FakeEnhancer, prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    assert run(prepared, "--out", out, "--sample", 5).exit_code == 0
    before = out.read_bytes()
    for args, name in ((("--adapter", "x"), "adapter_digest"), (("--hide-overview",), "hide_overview"), (("--retries", 0), "retries")):
        result = run(prepared, "--out", out, "--sample", 5, *args)
        assert result.exit_code == 3
        assert f"another {name}" in " ".join(result.stderr.split())
    out.with_suffix(".manifest.json").unlink()
    assert "give another --out" in " ".join(run(prepared, "--out", out).stderr.split())
    assert out.read_bytes() == before


def test_a_hidden_overview_is_told_to_nobody(enhancer: FakeEnhancer, prepared: Path, tmp_path: Path) -> None:
    assert run(prepared, "--out", tmp_path / "d.jsonl", "--hide-overview", "--sample", 20).exit_code == 0
    assert len(enhancer.told) == 20
    assert all(not item.overview and not item.extra for item in enhancer.told)
    assert any(item.genres for item in enhancer.told)


def test_a_larger_sample_holds_the_smaller_and_another_seed_is_another(prepared: Path) -> None:
    entries = read_entries(prepared)
    small, large, other = ([e.id for e in ranked_sample(entries, n, seed, {})] for n, seed in ((10, 0), (30, 0), (10, 1)))
    assert large[:10] == small != other


def test_what_the_sets_look_for_comes_first(enhancer: FakeEnhancer, prepared: Path, eval_folder: Path, tmp_path: Path) -> None:
    wanted: set[str] = set()
    for name in set_names(eval_folder, "dev"):
        asked = read_set(eval_folder, name, "dev")
        wanted |= set(asked.items.values()) if asked.of_items else set()
        wanted |= set().union(*asked.relevant.values())
    out = tmp_path / "d.jsonl"
    assert run(prepared, "--out", out, "--first", eval_folder, "--sample", len(wanted)).exit_code == 0
    assert {row["id"] for row in rows(out)} == wanted
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no evaluation set" in run(prepared, "--out", tmp_path / "e.jsonl", "--first", empty).stderr


def test_smoke_describes_four(enhancer: FakeEnhancer, prepared: Path, tmp_path: Path) -> None:
    assert run(prepared, "--out", tmp_path / "d.jsonl", "--smoke").exit_code == 0
    assert len(rows(tmp_path / "d.jsonl")) == 4


def test_ray_has_nothing_to_spread_where_a_server_has_the_model(tmp_path: Path) -> None:
    environment = {
        "MATINEE_ENHANCER__ENGINE": "openai",
        "MATINEE_ENHANCER__URL": "http://127.0.0.1:1/v1",
        "MATINEE_ENHANCER__MODEL": "gemma",
    }
    options = describe.DescribeOptions(prepared=tmp_path, spread=EngineOptions(engine="ray"))
    asked = describing.Describing(load_settings(environ=environment), hide_overview=False, checked=True)
    with pytest.raises(SettingsError, match="leave --engine out"), describe.engine(options, asked, 1):
        pass
