"""The page that fills rating sheets in, in a real browser, and what it takes from whoever asks. All answers here are plainly made up."""

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
from typer.testing import CliRunner

from matinee.errors import SettingsError
from tests.waiting import HANG_S
from train import ratings
from train.human.rating_sheets import PREFERENCE, RATINGS, read_sheet

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[3]


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
        process.communicate(timeout=HANG_S)
    assert process.returncode in (0, 130)


@pytest.fixture(scope="module")
def served(make_sheets: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    out = make_sheets(tmp_path_factory.mktemp("served"), "ann", "bob", items=2)
    with serving(out) as url:
        yield url, out


@pytest.fixture
def opened(browser: "Browser", served: tuple[str, Path]) -> "Iterator[Callable[[str], Page]]":
    """Opens the page; at the end nothing stands on the console, and nothing was asked of another host."""
    from tests.serve.static.page_support import Watch

    context = browser.new_context()
    watched = []

    def open(path: str) -> "Page":
        page = context.new_page()
        watched.append(Watch(page, served[0], "422"))
        page.goto(f"{served[0]}/{path}")
        return page

    yield open
    context.close()
    assert [problem for seen in watched for problem in seen.problems] == []


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


def test_an_answer_that_could_not_be_saved_is_not_shown_as_given(opened: "Callable[[str], Page]", served: tuple[str, Path]) -> None:
    page = opened("#bob")
    expect(page.locator("#place")).to_have_text("Item 1 of 2")
    # The form offers nothing else, so the page is made to.
    page.get_by_role("radio").first.evaluate("input => { sheet.values = ['9']; show(0) }")
    # Not `check`, which wants to see it checked: by then the page may have taken it back.
    page.get_by_role("radio", name="9").first.click(force=True)
    expect(page.get_by_role("alert")).to_contain_text("creativity_a is '9': use 1, 2, 3, 4 or 5")
    expect(page.get_by_role("radio", checked=True)).to_have_count(0)
    assert read_sheet(served[1] / "sheets" / "bob.csv").rows[0]["creativity_a"] == ""


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
    second = CliRunner().invoke(ratings.app, ["serve", str(out), "--port", "0"])
    assert second.exit_code == SettingsError.exit_code
    assert "another server has" in " ".join(second.stderr.split())


def test_the_better_one_is_named_on_the_same_page(make_sheets: Callable[..., Path], browser: "Browser", tmp_path: Path) -> None:
    out = make_sheets(tmp_path, "ann", items=1, split="train")
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
