"""`train.prepare`: clean items with their split, hashes, resuming."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from matinee.errors import SourceError
from matinee.evaluation.splits import read_entries
from matinee.items import NO_KIND
from train import prepare
from train.jobs import manifests


def run(*args: object) -> Result:
    return CliRunner().invoke(prepare.app, [str(arg) for arg in args])


def write_csv(path: Path, rows: list[tuple[str, ...]], header: str = "Title,Year,Genre,Overview") -> Path:
    path.write_text("\n".join([header, *(",".join(f'"{cell}"' for cell in row) for row in rows)]) + "\n")
    return path


def test_smoke_makes_a_complete_folder_once(tmp_path: Path) -> None:
    result = run("--smoke", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    manifest = manifests.read(tmp_path / "out", "prepare")
    assert set(manifest["outputs"]) == {"items.jsonl", "statistics.json"}
    assert manifest["statistics"]["franchises_that_cross"] == 0
    splits = manifest["statistics"]["splits"]
    assert splits["test"] == sum(splits.values()) // 10
    stamp = (tmp_path / "out" / "items.jsonl").stat().st_mtime_ns
    again = run("--smoke", "--out", tmp_path / "out")
    assert "complete already" in again.stderr
    assert (tmp_path / "out" / "items.jsonl").stat().st_mtime_ns == stamp
    other = run("--smoke", "--out", tmp_path / "out", "--seed", 1)
    assert other.exit_code == 0
    assert manifests.read(tmp_path / "out", "prepare")["outputs"]["items.jsonl"] != manifest["outputs"]["items.jsonl"]


def test_a_changed_or_unfinished_folder_is_made_anew(tmp_path: Path) -> None:
    run("--smoke", "--out", tmp_path)
    whole = (tmp_path / "items.jsonl").read_bytes()
    (tmp_path / "items.jsonl").write_bytes(whole[:1000])
    with pytest.raises(SourceError, match="is not what its manifest says"):
        manifests.read(tmp_path, "prepare")
    assert run("--smoke", "--out", tmp_path).exit_code == 0
    assert (tmp_path / "items.jsonl").read_bytes() == whole
    (tmp_path / manifests.MANIFEST).unlink()
    with pytest.raises(SourceError, match="it did not finish there"):
        manifests.read(tmp_path, "prepare")


def test_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    rows = [(f"Film {chr(65 + n)}x", "1999", "Drama", f"Somebody does thing {n} at last.") for n in range(20)]
    outputs = []
    for name, given in (("a", rows), ("b", rows[::-1])):
        assert run(write_csv(tmp_path / f"{name}.csv", given), "--kind", "film", "--out", tmp_path / name).exit_code == 0
        outputs.append((tmp_path / name / "items.jsonl").read_bytes())
    assert outputs[0] == outputs[1]


def test_a_split_column_wins(tmp_path: Path) -> None:
    rows = [(f"Film {chr(65 + n)}x", "1999", "Drama", "A story about a thing.", "test" if n < 5 else "train") for n in range(10)]
    path = write_csv(tmp_path / "films.csv", rows, "Title,Year,Genre,Overview,split")
    assert run(path, "--out", tmp_path / "out").exit_code == 0
    found = read_entries(tmp_path / "out")
    assert {entry.item.title: entry.split for entry in found} == {row[0]: row[4] for row in rows}
    assert all("split" not in entry.item.extra for entry in found)
    broken = write_csv(
        tmp_path / "broken.csv", [*rows, ("Film Z", "2000", "War", "Another story here.", "tset")], "Title,Year,Genre,Overview,split"
    )
    result = run(broken, "--out", tmp_path / "broken")
    assert result.exit_code == SourceError.exit_code
    assert "'tset'" in result.stderr


def test_the_eval_folder_keeps_its_own_split(prepared: Path, eval_folder: Path) -> None:
    given: dict[str, Any] = {}
    for line in (eval_folder / "corpus.jsonl").read_text().splitlines():
        row = json.loads(line)
        given[row["_id"]] = row["metadata"]["split"]
    found = read_entries(prepared)
    assert {entry.id: entry.split for entry in found} == given
    assert {entry.pools for entry in found} == {("kw",)}


def test_a_corpus_is_of_the_kind_that_the_command_names(prepared: Path, eval_folder: Path, tmp_path: Path) -> None:
    """Its rows say none: without `--kind` nothing claims that they are films."""
    assert {entry.item.kind for entry in read_entries(prepared)} == {"film"}
    assert {entry.item.kind for entry in read_entries(eval_folder)} == {NO_KIND}
    rows = [json.loads(line) for line in (eval_folder / "corpus.jsonl").read_text().splitlines()]
    rows[0]["metadata"]["kind"] = "book"
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [entry.item.kind for entry in read_entries(tmp_path, kind="film")][:2] == ["book", "film"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "name one catalogue"),
        (("nowhere.csv",), "neither a catalogue file nor"),
        (("films.csv", "--map", "x"), "write it as FIELD=COLUMN"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "films.csv", [("A film", "1999", "Drama", "A story.")])
    result = run(*args, "--out", tmp_path / "out")
    assert result.exit_code == SourceError.exit_code
    assert message in " ".join(result.stderr.split())


def test_a_finished_folder_is_named_with_its_brackets(tmp_path: Path) -> None:
    source, out = write_csv(tmp_path / "films.csv", [("Alien", "1979", "Horror", "A crew meets something.")]), tmp_path / "[v1]" / "out"
    assert run(source, "--kind", "film", "--out", out).exit_code == 0
    assert f"{out} is complete already" in run(source, "--kind", "film", "--out", out).stderr
