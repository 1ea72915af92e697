"""Blinded sheets, and what the report makes of answers. All answers here are plainly made up."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from matinee.errors import SettingsError, SourceError
from matinee.evaluation.splits import read_entries
from train import ratings
from train.generation.selection import ranked_sample
from train.human.rating_sheets import read_sheet, write_sheet
from train.jobs import manifests


def run(*args: object) -> Result:
    return CliRunner().invoke(ratings.app, [str(arg) for arg in args])


def answer(folder: Path, rater: str, says: Callable[[str, str, str], str]) -> None:
    """Fill a sheet in: `says(item, ask, model)`, which only a test can do, since it opens the key."""
    path = folder / "sheets" / f"{rater}.csv"
    sheet = read_sheet(path)
    first = json.loads((folder / "key.json").read_text())["raters"][rater]
    for row in sheet.rows:
        other = {"base": "tuned", "tuned": "base"}[first[row["item"]]]
        for ask in sheet.form.asks:
            row[ask] = says(row["item"], ask, other if ask.endswith("_b") else first[row["item"]])
    write_sheet(path, sheet.form, sheet.rows)


def test_sheets_are_blinded_and_by_seed(make_sheets: Callable[..., Path], prepared: Path, tmp_path: Path) -> None:
    out = make_sheets(tmp_path / "one", "ann", "bob")
    splits = {entry.id: entry.split for entry in read_entries(prepared)}
    sheets = {name: read_sheet(out / "sheets" / f"{name}.csv") for name in ("ann", "bob")}
    orders = [[row["item"] for row in sheet.rows] for sheet in sheets.values()]
    assert orders[0] != orders[1]
    assert set(orders[0]) == set(orders[1])
    assert len(set(orders[0])) == 20
    assert {splits[item] for item in orders[0]} == {"test"}
    key = json.loads((out / "key.json").read_text())["raters"]
    assert key["ann"] != key["bob"]
    for name, sheet in sheets.items():
        assert 4 <= sum(model == "base" for model in key[name].values()) <= 16
        assert all((row["a"].startswith("Something")) == (key[name][row["item"]] == "base") for row in sheet.rows)
        assert sheet.done == 0
        assert not {"base", "tuned", "model"} & set(sheet.path.read_text().casefold().replace(",", " ").split())
    again = make_sheets(tmp_path / "two", "bob", "ann")
    assert (again / "sheets" / "ann.csv").read_bytes() == (out / "sheets" / "ann.csv").read_bytes()
    # So that nobody has to describe a whole catalogue for twenty items.
    described = ranked_sample([entry for entry in read_entries(prepared) if entry.split == "test"], 20, 0, {})
    assert {entry.id for entry in described} == set(orders[0])
    other = make_sheets(tmp_path / "three", "ann", seed=1)
    assert {row["item"] for row in read_sheet(other / "sheets" / "ann.csv").rows} != set(orders[0])


def test_more_raters_come_later_and_nothing_filled_in_is_lost(
    make_sheets: Callable[..., Path], prepared: Path, texts: list[object], tmp_path: Path
) -> None:
    out = make_sheets(tmp_path, "ann")
    answer(out, "ann", lambda *_: "3")
    filled = (out / "sheets" / "ann.csv").read_bytes()
    make_sheets(tmp_path, "ann", "bob")
    assert (out / "sheets" / "ann.csv").read_bytes() == filled
    assert set(json.loads((out / "key.json").read_text())["raters"]) == {"ann", "bob"}
    refused = run("sheets", prepared, *texts, "--rater", "cid", "--seed", 1, "--out", out)
    assert refused.exit_code == SettingsError.exit_code
    assert "another draw" in refused.stderr


def test_too_few_descriptions_are_named(prepared: Path, texts: list[object], tmp_path: Path) -> None:
    result = run("sheets", prepared, *texts, "--rater", "ann", "--items", 25, "--out", tmp_path)
    assert result.exit_code == SourceError.exit_code
    assert "of 24 items of the test split 24 have a description" in " ".join(result.stderr.split())
    same = run("sheets", prepared, "--base", texts[1], "--tuned", texts[1], "--rater", "ann", "--out", tmp_path)
    assert "0 of them two different ones" in " ".join(same.stderr.split())
    for option in (("--split", "dev"), ("--rater", "../ann")):
        assert run("sheets", prepared, *texts, "--rater", "ann", *option, "--out", tmp_path).exit_code in (2, 3)
    assert not (tmp_path / "key.json").exists()


def test_the_report_has_table_3_and_figure_5(make_sheets: Callable[..., Path], tmp_path: Path) -> None:
    out = make_sheets(tmp_path, "ann", "bob", "cid", items=4)
    given = {"base": {"creativity": 2, "relevance": 3, "utility": 1}, "tuned": {"creativity": 4, "relevance": 3, "utility": 5}}
    for rater in ("ann", "bob", "cid"):
        # One of three gives the base's creativity one more.
        answer(
            out, rater, lambda item, ask, model, rater=rater: str(given[model][ask[:-2]] + (rater == "cid" and given[model][ask[:-2]] == 2))
        )  # type: ignore[misc]
    result = run("report", out)
    assert result.exit_code == 0, result.output
    found = json.loads((out / "report" / "report.json").read_text())
    creativity, relevance, utility = found["table3"]
    assert creativity["base"] == {"mean": pytest.approx(28 / 12), "sd": pytest.approx(0.4924, abs=1e-4), "ratings": 12}
    assert creativity["tuned"] == {"mean": 4, "sd": 0, "ratings": 12}
    assert creativity["difference"]["mean"] == pytest.approx(5 / 3)
    assert (relevance["difference"]["mean"], utility["difference"]["mean"]) == (0, 4)
    assert found["agreement"]["utility"]["mean_kappa"] == found["agreement"]["utility"]["fleiss"] == 1
    assert found["agreement"]["relevance"]["fleiss"] is None
    pairs = {tuple(pair["raters"]): pair["kappa"] for pair in found["agreement"]["creativity"]["pairs"]}
    # They never agree where the base wrote, always where the tuned one did: half, of which a quarter by chance.
    assert pairs == {("ann", "bob"): 1, ("ann", "cid"): pytest.approx(1 / 3), ("bob", "cid"): pytest.approx(1 / 3)}
    assert "| creativity | 2.33 ± 0.49 | 4.00 ± 0.00 | +1.667 [+1.667, +1.667] | 2.8, 4.3 |" in result.stdout
    figure = (out / "report" / "figure5.svg").read_text()
    assert figure in (out / "report" / "report.html").read_text()
    assert "creativity" in figure
    manifests.read(out / "report", "ratings")
    run("report", out)
    assert (out / "report" / "figure5.svg").read_text() == figure


def test_preferences_are_counted_for_the_model_that_wrote(make_sheets: Callable[..., Path], prepared: Path, tmp_path: Path) -> None:
    out = make_sheets(tmp_path, "ann", "bob", items=10, split="train")
    splits = {entry.id: entry.split for entry in read_entries(prepared)}
    assert {splits[row["item"]] for row in read_sheet(out / "sheets" / "ann.csv").rows} == {"train"}
    answer(out, "ann", lambda item, ask, first: "a" if first == "tuned" else "b")
    answer(out, "bob", lambda item, ask, first: "tie")
    result = run("report", out)
    assert result.exit_code == 0, result.output
    found = json.loads((out / "report" / "report.json").read_text())["preference"]
    assert (found["tuned"], found["tie"], found["base"]) == (10, 10, 0)
    assert found["share_tuned"]["mean"] == 0.75
    assert not (out / "report" / "figure5.svg").exists()


def edit(path: Path, change: Callable[[list[list[str]]], object], delimiter: str = ",") -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    change(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


REFUSED: dict[str, tuple[Callable[[list[list[str]]], object], str]] = {
    "out of range": (lambda rows: rows[3].__setitem__(5, "6"), "ann.csv, line 4: creativity_a is '6': use 1, 2, 3, 4 or 5"),
    "no number": (lambda rows: rows[2].__setitem__(7, "good"), "ann.csv, line 3: utility_a is 'good'"),
    "missing": (lambda rows: rows[2].__setitem__(6, " "), "ann.csv, line 3: no relevance_a for item"),
    "twice": (lambda rows: rows.append([*rows[1][:-1], "5"]), "ann.csv, line 5: item .* is judged in line 2 already"),
    "row gone": (lambda rows: rows.pop(), "ann.csv lacks the row of item"),
    "foreign": (lambda rows: rows[1].__setitem__(0, "heat-1995"), "ann.csv, line 2: item heat-1995 was not handed out to ann"),
    "cut off": (lambda rows: rows[3].__delitem__(slice(6, None)), "ann.csv, line 4: it has more or fewer cells"),
    "too wide": (lambda rows: rows[3].append("7"), "ann.csv, line 4: it has more or fewer cells"),
    "no sheet": (lambda rows: rows[0].__setitem__(5, "originality"), "ann.csv is not a sheet"),
}


@pytest.fixture(scope="module")
def rated(make_sheets: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A folder that is filled in; each call puts `ann`'s sheet back as it was."""
    out = make_sheets(tmp_path_factory.mktemp("rated"), "ann", items=3)
    answer(out, "ann", lambda *_: "3")
    whole = (out / "sheets" / "ann.csv").read_bytes()

    def restored() -> Path:
        for path in (out / "sheets").glob("*.csv"):
            path.unlink()
        (out / "sheets" / "ann.csv").write_bytes(whole)
        return out

    return restored


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_can_not_be_right_are_refused_with_their_line(rated: Callable[[], Path], name: str) -> None:
    folder = rated()
    change, message = REFUSED[name]
    edit(folder / "sheets" / "ann.csv", change)
    result = run("report", folder)
    assert result.exit_code == SourceError.exit_code
    assert result.stdout == ""
    with pytest.raises(SourceError, match=message):
        raise SourceError(" ".join(result.stderr.split()))


def test_a_spreadsheets_dialect_is_read(rated: Callable[[], Path]) -> None:
    folder = rated()
    before = read_sheet(folder / "sheets" / "ann.csv")
    edit(folder / "sheets" / "ann.csv", lambda rows: rows.append([""] * len(rows[0])), ";")
    assert read_sheet(folder / "sheets" / "ann.csv").rows == before.rows
    assert run("report", folder).exit_code == 0
    (folder / "sheets" / "ann.csv").write_bytes("Amélie".encode("latin-1"))
    assert "save it again as CSV in UTF-8" in " ".join(run("report", folder).stderr.split())


def test_a_renamed_sheet_and_a_lost_key_are_no_guesses(rated: Callable[[], Path]) -> None:
    folder = rated()
    (folder / "sheets" / "ann.csv").rename(folder / "sheets" / "bob.csv")
    assert "has no rater bob" in " ".join(run("report", folder).stderr.split())
    assert "cannot read" in run("report", folder / "sheets").stderr


def test_a_lost_sheet_is_said(make_sheets: Callable[..., Path], tmp_path: Path) -> None:
    out = make_sheets(tmp_path, "ann", "bob", items=3)
    for name in ("ann", "bob"):
        answer(out, name, lambda *_: "3")
    (out / "sheets" / "bob.csv").unlink()
    refused = run("report", out)
    assert refused.exit_code == SourceError.exit_code
    assert "lacks the sheet of bob: put it back" in " ".join(refused.stderr.split())
    assert run("report", out, "--finished-only").exit_code == 0
    assert json.loads((out / "report" / "report.json").read_text())["left_out"] == ["bob"]


def test_who_is_not_done_is_left_out_only_when_asked(make_sheets: Callable[..., Path], tmp_path: Path) -> None:
    out = make_sheets(tmp_path, "ann", "bob", items=3)
    answer(out, "ann", lambda *_: "3")
    refused = run("report", out)
    assert refused.exit_code == SourceError.exit_code
    assert "--finished-only leaves out" in " ".join(refused.stderr.split())
    assert run("report", out, "--finished-only").exit_code == 0
    found = json.loads((out / "report" / "report.json").read_text())
    assert (found["raters"], found["left_out"]) == (["ann"], ["bob"])
