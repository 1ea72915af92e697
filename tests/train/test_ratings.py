"""Blinded sheets, the page that fills them in, and what the report makes of answers. All answers here are plainly made up."""

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.sync_api import expect
from typer.testing import CliRunner, Result

from matinee.corpus import read_corpus
from matinee.errors import SettingsError, SourceError
from train import ratings, runs
from train.agreement import agreement, cohen, fleiss
from train.describe import chosen
from train.sheets import PREFERENCE, RATINGS, read_sheet, write_sheet

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]

# Fleiss (1971), table 1: 30 patients, 6 psychiatrists; depression, personality disorder, schizophrenia, neurosis, other.
FLEISS_1971 = """00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006"""


def run(*args: object) -> Result:
    return CliRunner().invoke(ratings.app, [str(arg) for arg in args])


def test_fleiss_kappa_is_that_of_the_published_example() -> None:
    counts = [[int(count) for count in row] for row in FLEISS_1971.split()]
    assert [sum(column) for column in zip(*counts, strict=True)] == [26, 26, 30, 55, 43]
    assert fleiss(counts) == pytest.approx(0.430, abs=5e-4)
    assert fleiss([[3, 0], [3, 0]]) is None
    assert fleiss([[1, 0], [0, 1]]) is None
    assert fleiss([[2, 0], [0, 2]]) == 1


def test_cohens_kappa_counts_agreement_beyond_chance() -> None:
    # 50 proposals: both yes 20, only the first 5, only the second 10, both no 15; chance explains half.
    first, second = "y" * 25 + "n" * 25, "y" * 20 + "n" * 5 + "y" * 10 + "n" * 15
    assert cohen(first, second, "yn") == pytest.approx(0.4)
    assert cohen("3333", "3333", "12345") is None
    near, far = cohen("1245", "1254", "12345", weighted=True), cohen("1245", "5241", "12345", weighted=True)
    assert near is not None
    assert far is not None
    assert near > 0.8 > far
    assert cohen("1245", "1254", "12345") == cohen("1245", "5241", "12345")


def test_agreement_is_of_each_pair_and_of_all() -> None:
    told = {"ann": {"x": "1", "y": "5"}, "bob": {"y": "5", "x": "1"}, "cid": {"x": "5", "y": "1"}}
    found = agreement(told, "12345", ordered=True)
    assert [(pair.raters, pair.kappa) for pair in found.pairs] == [(("ann", "bob"), 1), (("ann", "cid"), -1), (("bob", "cid"), -1)]
    assert found.mean_kappa == pytest.approx(-1 / 3)
    assert found.fleiss == pytest.approx(-1 / 3)
    assert agreement({"ann": {"x": "1"}}, "12345", ordered=True).fleiss is None


@pytest.fixture(scope="session")
def texts(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """`--base` and `--tuned` with a description of every item by each model."""
    folder = tmp_path_factory.mktemp("descriptions")
    told: list[object] = []
    for name, says in (("base", "Something of {}, perhaps; <b>who</b> knows."), ("tuned", "A story of “{}”, told with care.")):
        rows = [json.dumps({"id": e.id, "description": says.format(e.item.title)}) for e in read_corpus(prepared)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        told += [f"--{name}", folder / f"{name}.jsonl"]
    return told


def make(prepared: Path, texts: list[object], out: Path, *raters: str, split: str = "test", **options: object) -> Path:
    more = [text for name, value in options.items() for text in (f"--{name}", value)]
    named = [text for rater in raters for text in ("--rater", rater)]
    result = run("sheets", prepared, *texts, *named, "--split", split, "--out", out, *more)
    assert result.exit_code == 0, result.output
    return out


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


def test_sheets_are_blinded_and_by_seed(prepared: Path, texts: list[object], tmp_path: Path) -> None:
    out = make(prepared, texts, tmp_path / "one", "ann", "bob")
    splits = {entry.id: entry.split for entry in read_corpus(prepared)}
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
    again = make(prepared, texts, tmp_path / "two", "bob", "ann")
    assert (again / "sheets" / "ann.csv").read_bytes() == (out / "sheets" / "ann.csv").read_bytes()
    # So that nobody has to describe a whole catalogue for twenty items.
    described = chosen([entry for entry in read_corpus(prepared) if entry.split == "test"], 20, 0, {})
    assert {entry.id for entry in described} == set(orders[0])
    other = make(prepared, texts, tmp_path / "three", "ann", seed=1)
    assert {row["item"] for row in read_sheet(other / "sheets" / "ann.csv").rows} != set(orders[0])


def test_more_raters_come_later_and_nothing_filled_in_is_lost(prepared: Path, texts: list[object], tmp_path: Path) -> None:
    out = make(prepared, texts, tmp_path, "ann")
    answer(out, "ann", lambda *_: "3")
    filled = (out / "sheets" / "ann.csv").read_bytes()
    make(prepared, texts, tmp_path, "ann", "bob")
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


def test_the_report_has_table_3_and_figure_5(prepared: Path, texts: list[object], tmp_path: Path) -> None:
    out = make(prepared, texts, tmp_path, "ann", "bob", "cid", items=4)
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
    runs.read_manifest(out / "report", "ratings")
    run("report", out)
    assert (out / "report" / "figure5.svg").read_text() == figure


def test_preferences_are_counted_for_the_model_that_wrote(prepared: Path, texts: list[object], tmp_path: Path) -> None:
    out = make(prepared, texts, tmp_path, "ann", "bob", items=10, split="train")
    splits = {entry.id: entry.split for entry in read_corpus(prepared)}
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
    "no sheet": (lambda rows: rows[0].__setitem__(5, "originality"), "ann.csv is no sheet"),
}


@pytest.fixture(scope="module")
def rated(prepared: Path, texts: list[object], tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A folder that is filled in; each call puts `ann`'s sheet back as it was."""
    out = make(prepared, texts, tmp_path_factory.mktemp("rated"), "ann", items=3)
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


def test_who_is_not_done_is_left_out_only_when_asked(prepared: Path, texts: list[object], tmp_path: Path) -> None:
    out = make(prepared, texts, tmp_path, "ann", "bob", items=3)
    answer(out, "ann", lambda *_: "3")
    refused = run("report", out)
    assert refused.exit_code == SourceError.exit_code
    assert "--finished-only leaves out" in " ".join(refused.stderr.split())
    assert run("report", out, "--finished-only").exit_code == 0
    found = json.loads((out / "report" / "report.json").read_text())
    assert (found["raters"], found["left_out"]) == (["ann"], ["bob"])


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The URL of `train.ratings serve` as a process of its own."""
    command = [sys.executable, "-m", "train.ratings", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    told = ""
    while "(Ctrl-C stops)" not in told:
        line = process.stderr.readline()
        assert line, told
        told += f"{line.strip()} "
    try:
        yield told.partition("rate at ")[2].split()[0].rstrip("/")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode in (0, 130)


@pytest.fixture(scope="module")
def served(prepared: Path, texts: list[object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    out = make(prepared, texts, tmp_path_factory.mktemp("served"), "ann", "bob", items=2)
    with serving(out) as url:
        yield url, out


@pytest.fixture
def opened(browser: "Browser", served: tuple[str, Path]) -> "Iterator[Callable[[str], Page]]":
    """Opens the page; at the end nothing stands on the console, and nothing was asked of another host."""
    watch = sys.modules["page_support"].Watch
    context = browser.new_context()
    watched = []

    def open(path: str) -> "Page":
        page = context.new_page()
        watched.append(watch(page, served[0], "422"))
        page.goto(f"{served[0]}/{path}")
        return page

    yield open
    context.close()
    assert [problem for seen in watched for problem in seen.problems] == []


@pytest.mark.slow
def test_a_rater_answers_leaves_and_goes_on(opened: "Callable[[str], Page]", served: tuple[str, Path]) -> None:
    sheet = served[1] / "sheets" / "ann.csv"
    page = opened("")
    page.get_by_role("link", name="ann").click()
    expect(page.locator("#place")).to_have_text("Item 1 of 2")
    first = read_sheet(sheet).rows[0]
    expect(page.get_by_role("heading", level=1)).to_have_text(first["title"])
    expect(page.get_by_role("region", name="Description A").locator("p")).to_have_text(first["a"])
    for letter, values in (("A", "315"), ("B", "542")):
        groups = page.get_by_role("region", name=f"Description {letter}").get_by_role("group")
        for group, value in enumerate(values):
            groups.nth(group).get_by_role("radio", name=value).check()
    expect(page.locator("#done")).to_have_text("1 of 2 answered")
    # By keyboard, too: an arrow moves to the next value, and that is saved.
    page.get_by_role("region", name="Description A").get_by_role("group").nth(0).get_by_role("radio", name="3").press("ArrowRight")
    page.get_by_role("button", name="Next").press("Enter")
    expect(page.locator("#place")).to_have_text("Item 2 of 2")
    expect(page.locator("#saved")).to_have_text("Saved")
    assert [read_sheet(sheet).rows[0][ask] for ask in RATINGS.asks] == list("415542")
    again = opened("#ann")
    expect(again.locator("#place")).to_have_text("Item 2 of 2")
    again.get_by_role("button", name="Previous").click()
    expect(again.get_by_role("radio", checked=True)).to_have_count(6)
    again.get_by_role("button", name="Next").click()
    again.get_by_role("button", name="Next").click()
    expect(again.get_by_role("heading", level=1)).to_have_text("Some are not answered yet")
    again.get_by_role("button", name="Show the first of them").click()
    for group in again.get_by_role("group").all():
        group.get_by_role("radio", name="2").check()
    again.get_by_role("button", name="Next").click()
    expect(again.get_by_role("heading", level=1)).to_have_text("That was the last one. Thank you!")
    expect(again.locator("#done")).to_have_text("2 of 2 answered")
    assert read_sheet(sheet).done == 2
    assert not {"base", "tuned"} & set(again.content().casefold().split())


@pytest.mark.slow
def test_an_answer_that_could_not_be_saved_is_not_shown_as_given(opened: "Callable[[str], Page]", served: tuple[str, Path]) -> None:
    page = opened("#bob")
    expect(page.locator("#place")).to_have_text("Item 1 of 2")
    # The form offers nothing else, so the page is made to.
    page.get_by_role("radio").first.evaluate("input => { sheet.values = ['9']; show(0) }")
    page.get_by_role("radio", name="9").first.check(force=True)
    expect(page.get_by_role("alert")).to_contain_text("creativity_a is '9': use 1, 2, 3, 4 or 5")
    expect(page.get_by_role("radio", checked=True)).to_have_count(0)
    assert read_sheet(served[1] / "sheets" / "bob.csv").rows[0]["creativity_a"] == ""


@pytest.mark.slow
def test_the_page_takes_only_what_a_rater_may_send(served: tuple[str, Path]) -> None:
    url, out = served
    item = read_sheet(out / "sheets" / "bob.csv").rows[0]["item"]
    with httpx.Client(base_url=url) as client:

        def put(rater: str, body: Any, **headers: str) -> httpx.Response:
            text = body if isinstance(body, str) else json.dumps(body)
            return client.put(f"/sheets/{rater}", content=text, headers={"content-type": "application/json"} | headers)

        assert put("bob", {"item": item, "answers": {"utility_b": "5"}}).json() == {"done": 0, "of": 2}
        assert read_sheet(out / "sheets" / "bob.csv").rows[0]["utility_b"] == "5"
        refused: list[tuple[int, httpx.Response]] = [
            (422, put("bob", {"item": item, "answers": {"utility_b": "0"}})),
            (422, put("bob", {"item": item, "answers": {"item": "5"}})),
            (422, put("bob", {"item": item, "answers": {"utility_b": 5}})),
            (422, put("bob", "{")),
            (422, put("bob", {"item": item, "answers": {}}, **{"content-type": "text/plain"})),
            (422, put("bob", {"item": item, "answers": {"utility_b": "5" * 20_000}})),
            (404, put("bob", {"item": "heat-1995", "answers": {"utility_b": "5"}})),
            (404, put("cid", {"item": item, "answers": {"utility_b": "5"}})),
            (400, client.get("/sheets", headers={"host": "elsewhere.example"})),
            (404, client.get("/key.json")),
            (404, client.get("/sheets/..%2f..%2fkey")),
        ]
        assert [answer.status_code for _, answer in refused] == [status for status, _ in refused]
        assert [one["rater"] for one in client.get("/sheets").json()] == ["ann", "bob"]
    second = run("serve", out, "--port", 0)
    assert second.exit_code == SettingsError.exit_code
    assert "another server has" in " ".join(second.stderr.split())


@pytest.mark.slow
def test_the_better_one_is_named_on_the_same_page(browser: "Browser", prepared: Path, texts: list[object], tmp_path: Path) -> None:
    out = make(prepared, texts, tmp_path, "ann", items=1, split="train")
    with serving(out) as url:
        page = browser.new_page()
        page.goto(f"{url}/#ann")
        page.get_by_role("radio", name="Neither is better").check()
        expect(page.locator("#saved")).to_have_text("Saved")
        page.get_by_role("radio", name="B", exact=True).check()
        expect(page.locator("#done")).to_have_text("1 of 1 answered")
        expect(page.locator("#saved")).to_have_text("Saved")
        page.close()
    (row,) = read_sheet(out / "sheets" / "ann.csv").rows
    assert row["preference"] == "b"
    assert read_sheet(out / "sheets" / "ann.csv").form is PREFERENCE
