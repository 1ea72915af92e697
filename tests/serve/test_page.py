"""The web page in a real headless Chromium, against the whole graph in one process.

Each page under test also holds three promises, checked at its end: nothing on the console, no request to another host, no violation of
its content security policy. Does not test rankings.
"""

import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route, expect, sync_playwright

from matinee.settings import KeySettings
from serve.access import hash_key

CHROMIUM = Path(os.environ.get("MATINEE_TEST_CHROMIUM", "/usr/bin/chromium"))
ARGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGS += ["--disable-component-update", "--disable-sync"]
WAIT_MS = 15_000

pytestmark = pytest.mark.slow

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        message = f"{CHROMIUM} is missing: install Debian's chromium, or name another one in MATINEE_TEST_CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGS)
        yield browser
        browser.close()


class Watch:
    """What a page must not do; `allowed` is a pattern of console messages that a test provokes."""

    def __init__(self, page: Page, origin: str) -> None:
        self.allowed: str | None = None
        self._problems: list[str] = []
        self._origin = origin
        page.on("console", self._console)
        page.on("pageerror", lambda error: self._problems.append(f"uncaught: {error}"))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        # Content security policy violations come here, too.
        self._problems.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self._origin, "data:")):
            self._problems.append(f"asked another host: {request.url}")

    @property
    def problems(self) -> list[str]:
        return [problem for problem in self._problems if not (self.allowed and re.search(self.allowed, problem))]


@pytest.fixture
def open_page(browser: Browser, local_app_url: str) -> Iterator[Open]:
    """`open_page("#q=...", width=360, base=URL, allowed="pattern")` -> a page of its own context, with its first answer on it."""
    opened: list[tuple[Any, Watch]] = []

    def start(path: str = "", *, base: str = local_app_url, width: int = 1280, allowed: str | None = None, wait: bool = True) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900})
        page = context.new_page()
        watch = Watch(page, base)
        watch.allowed = allowed
        opened.append((context, watch))
        page.goto(f"{base}/{path}")
        if wait:
            settled(page)
        return page

    yield start
    problems = [problem for _, watch in opened for problem in watch.problems]
    for context, _ in opened:
        context.close()
    assert problems == []


def settled(page: Page) -> None:
    """The page shows an answer or an error, and waits for nothing."""
    expect(page.locator("#outcome")).not_to_have_attribute("aria-busy", "true")


def titles(page: Page) -> list[str]:
    settled(page)
    return page.locator(".card h2").all_inner_texts()


def put(url: str, *items: dict[str, Any]) -> list[str]:
    """Add items; returns their ids."""
    answer = httpx.put(f"{url}/v1/items", json={"items": list(items)}, timeout=30).raise_for_status()
    return [item["id"] for item in answer.json()["items"]]


def test_first_visit_shows_items_and_examples_to_click(open_page: Open) -> None:
    page = open_page()
    expect(page.locator(".card")).to_have_count(12)
    expect(page.locator("#catalogue")).to_contain_text("demo")
    page.get_by_role("button", name="alone at sea").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Results for “alone at sea”")
    expect(page.locator("#query")).to_have_value("alone at sea")
    expect(page.locator(".score-type").first).to_have_text("rrf")
    expect(page.locator("#intro")).to_be_hidden()


def test_type_ahead_and_the_whole_flow_by_keyboard(open_page: Open) -> None:
    page = open_page()
    page.keyboard.press("/")
    box = page.get_by_role("combobox", name="Search")
    expect(box).to_be_focused()
    page.keyboard.type("incep")
    option = page.get_by_role("option", name=re.compile("^Inception"))
    expect(option).to_be_visible()
    expect(box).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()
    page.keyboard.press("ArrowDown")
    expect(option).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(option).to_have_attribute("aria-selected", "true")
    expect(box).to_have_attribute("aria-activedescendant", option.get_attribute("id") or "")
    page.keyboard.press("Enter")
    expect(page.locator(".chip.likes .chip-name")).to_have_text("Inception (2010)")
    expect(page.locator(".reason").first).to_contain_text("If you enjoyed Inception")
    expect(box).to_have_value("")
    expect(box).to_be_focused()
    page.keyboard.type("a quiet town")
    page.keyboard.press("Enter")
    settled(page)
    assert "q=a+quiet+town" in page.url
    assert "like=" in page.url
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Remove like: Inception (2010)")).to_be_focused()
    page.keyboard.press("Delete")
    expect(page.locator(".chip")).to_have_count(0)
    expect(box).to_be_focused()
    expect(page.get_by_role("heading", level=1)).to_have_text("Results for “a quiet town”")


def test_enter_searches_and_says_how_long_it_took(open_page: Open) -> None:
    page = open_page()
    page.locator("#query").fill("dreams within dreams")
    page.keyboard.press("Enter")
    expect(page.locator(".card h2").first).to_contain_text("Inception")
    expect(page.locator(".stages")).to_have_text(re.compile(r"server [\d.,]+ ms \(.*retrieve [\d.,]+"))
    expect(page.locator(".timing")).to_have_text(re.compile(r"[\d.,]+ ms"))
    page.get_by_label("Words", exact=False).and_(page.locator("#mode-sparse")).check()
    expect(page.locator(".score-type").first).to_have_text("bm25")
    expect(page.locator("#mode-sparse")).to_be_focused()


def test_likes_and_dislikes_from_cards(open_page: Open) -> None:
    page = open_page("#like=Inception")
    first, second = titles(page)[:2]
    page.locator(".card").nth(0).get_by_role("button", name="More like this").click()
    expect(page.locator(".chip.likes")).to_have_count(2)
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    assert first not in titles(page)
    page.locator(".card", has_text=second).get_by_role("button", name="Not for me").click()
    expect(page.locator(".chip.dislikes")).to_have_count(1)
    shown = titles(page)
    assert second not in shown
    assert len(shown) == 12
    expect(page.locator(".reason")).to_have_count(12)
    page.get_by_role("button", name="Remove dislike").click()
    expect(page.locator(".chip")).to_have_count(2)


def test_similar_and_describe(open_page: Open) -> None:
    page = open_page("#q=dreams+within+dreams")
    card = page.locator(".card", has=page.get_by_role("heading", name="Inception 2010"))
    card.get_by_role("button", name="Describe").click()
    expect(card.locator("blockquote")).to_have_text("Inception, in other words.")
    expect(card.locator(".marked")).to_contain_text("Checked and corrected")
    expect(card.locator(".violations li")).to_have_text("a name that the metadata does not have")
    card.get_by_role("button", name="Similar to Inception").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Similar to Inception (2010)")
    expect(page.locator(".score-type").first).to_have_text("cosine")
    page.locator("#genres-Drama").check()
    expect(page.get_by_role("heading", level=1)).to_have_text("Similar to Inception (2010)")
    expect(page.locator(".facts", has_text="Drama")).to_have_count(12)


def test_filters_years_and_diversity(open_page: Open) -> None:
    page = open_page("#like=Inception")
    plain = titles(page)
    page.locator("#genres-Comedy").check()
    expect(page.locator(".facts", has_text="Comedy")).to_have_count(12)
    expect(page.locator("#genres-Comedy")).to_be_focused()
    page.locator("#language").select_option("fr")
    expect(page.locator(".facts", has_not_text="French")).to_have_count(0)
    page.locator("#year-from").fill("1990")
    page.keyboard.press("Tab")
    settled(page)
    assert "from=1990" in page.url
    assert all(int(title[-4:]) >= 1990 for title in titles(page))
    page.locator("#year-to").fill("1950")
    page.keyboard.press("Tab")
    expect(page.locator("#years-problem")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".card")).to_have_count(12)
    assert titles(page) == plain
    page.locator("#diversity").focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    expect(page.locator("output")).to_contain_text("0.8")
    settled(page)
    expect(page.locator(".card h2").nth(1)).not_to_have_text(plain[1])
    assert "diversity=0.8" in page.url


def test_an_empty_result_says_what_to_relax(open_page: Open) -> None:
    page = open_page("#q=dreams&genre=Western&language=ja&to=1930")
    expect(page.locator(".empty h2")).to_have_text("Nothing matches")
    expect(page.get_by_role("status")).to_have_text("Nothing found")
    page.get_by_role("button", name="Any instead of: ja").click()
    expect(page.locator(".empty")).to_be_visible()
    page.get_by_role("button", name="Clear all filters").click()
    expect(page.locator(".card").first).to_be_visible()


def test_an_ambiguous_title_asks_which_one(open_page: Open, local_app_url: str) -> None:
    put(local_app_url, {"id": "solaris-2002", "kind": "film", "title": "Two of a Kind", "year": 2002})
    put(local_app_url, {"id": "solaris-1972", "kind": "film", "title": "Two of a Kind", "year": 1972})
    page = open_page(allowed="409")
    page.locator("#query").fill("two of a kind")
    page.get_by_role("option", name="find this title").click()
    expect(page.locator(".error")).to_have_attribute("data-code", "ambiguous_title")
    expect(page.locator(".request-id")).to_have_text(re.compile("Request .{8,}"))
    page.get_by_role("list", name="Candidates").get_by_role("button", name="1972").click()
    expect(page.locator(".chip-name")).to_have_text("Two of a Kind (1972)")
    expect(page.locator(".card")).to_have_count(12)


def test_an_item_cannot_run_or_draw_anything(open_page: Open, local_app_url: str) -> None:
    evil = "<img src=x onerror=\"document.title='run'\">"
    [id] = put(
        local_app_url,
        {
            "id": "evil",
            "kind": "film",
            "title": evil,
            "overview": "<script>document.title='run'</script>",
            "genres": ["<b>Bold</b>"],
            "people": {"director": ["<i>Someone</i>"]},
        },
    )
    page = open_page(f"#similar={id}")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Similar to {evil}")
    page.locator("#query").fill("<img src=x")
    expect(page.get_by_role("option").first).to_contain_text(evil)
    page.get_by_role("option").first.click()
    expect(page.locator(".chip-name")).to_have_text(evil)
    page.locator("#query").fill("onerror document title run")
    page.keyboard.press("Enter")
    page.get_by_role("button", name=re.compile("Remove like")).click()
    card = page.locator(".card", has=page.get_by_role("heading", name=evil))
    expect(card).to_be_visible()
    expect(card.locator(".overview")).to_have_text("<script>document.title='run'</script>")
    expect(card.locator("dd")).to_have_text("<i>Someone</i>")
    assert page.locator("#outcome img, #outcome script, #outcome b, #outcome i, .combobox img, .chips img").count() == 0
    assert page.title() != "run"


def test_back_restores_what_was_asked(open_page: Open) -> None:
    page = open_page("#q=alone+at+sea")
    first = titles(page)
    page.locator("#genres-Drama").check()
    expect(page).to_have_url(re.compile("genre=Drama"))
    settled(page)
    page.locator(".card").first.get_by_role("button", name="Similar").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Similar to")
    settled(page)
    page.go_back()
    expect(page.locator("#query")).to_have_value("alone at sea")
    expect(page.locator("#genres-Drama")).to_be_checked()
    page.go_back()
    expect(page.locator("#genres-Drama")).not_to_be_checked()
    expect(page.locator(".card h2").first).to_have_text(first[0])
    assert titles(page) == first
    page.go_forward()
    expect(page.locator("#genres-Drama")).to_be_checked()


def test_show_more_keeps_the_place(open_page: Open) -> None:
    page = open_page("#like=Inception")
    before = titles(page)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".card")).to_have_count(24)
    assert titles(page)[:12] == before
    expect(page.locator(".card h2").nth(12)).to_be_focused()


@pytest.mark.parametrize(
    "path", ["", "#like=Inception&like=Amélie&dislike=Titanic (1997)", "#q=dreams&genre=Western&to=1900", "#like=xyzzy"]
)
def test_a_phone_needs_no_sideways_scrolling(open_page: Open, local_app_url: str, path: str) -> None:
    put(local_app_url, {"id": "long", "kind": "film", "title": "Inception " + "Looooooooong" * 30, "genres": ["Drama"]})
    page = open_page(path, width=360, allowed="404|409")
    page.locator("summary").click()
    page.locator("#query").fill("incep")
    expect(page.get_by_role("option").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    beyond = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML)"
    assert page.evaluate(beyond) == []


def test_a_stale_answer_never_replaces_a_newer_one(open_page: Open) -> None:
    page = open_page()
    held: list[Route] = []
    page.route("**/v1/search", lambda route: held.append(route) if "slow" in (route.request.post_data or "") else route.continue_())
    page.locator("#query").fill("slow question")
    page.keyboard.press("Enter")
    expect(page.locator("#outcome")).to_have_attribute("aria-busy", "true")
    page.locator("#query").fill("dreams within dreams")
    page.keyboard.press("Enter")
    expect(page.locator(".card h2").first).to_contain_text("Inception")
    assert len(held) == 1
    assert held[0].request.failure == "net::ERR_ABORTED"


def test_the_server_is_gone_and_comes_back(open_page: Open) -> None:
    page = open_page(allowed="ERR_CONNECTION_REFUSED|ERR_FAILED")
    page.route("**/v1/**", lambda route: route.abort("connectionrefused"))
    page.locator("#query").fill("alone at sea")
    page.keyboard.press("Enter")
    expect(page.locator(".error")).to_have_attribute("data-code", "network")
    page.unroute("**/v1/**")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".card")).to_have_count(12)


def test_without_an_index_it_shows_the_command(open_page: Open, local_graph: Any, tmp_path: Path) -> None:
    with local_graph.serve_app(lambda: local_graph.build_local_graph(tmp_path, films=())) as url:
        page = open_page(base=url, allowed="503")
        expect(page.locator(".error")).to_have_attribute("data-code", "index_absent")
        expect(page.locator(".error pre")).to_contain_text("matinee ingest")
        page.close()


def test_a_key_is_asked_for_and_kept_in_this_tab_only(open_page: Open, local_graph: Any, tmp_path: Path) -> None:
    secret = f"mat_{uuid.uuid4().hex}"
    keys = [KeySettings(name="reader", sha256=hash_key(secret), scopes=("read",)).model_dump()]
    settings = local_graph.local_settings(tmp_path, serving={"keys": keys})
    films = local_graph.demo_films()[:20]
    with local_graph.serve_app(lambda: local_graph.build_local_graph(tmp_path, films=films, settings=settings)) as url:
        page = open_page(base=url, allowed="401")
        box = page.get_by_label("API key", exact=True)
        expect(box).to_be_focused()
        box.fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator(".error")).to_contain_text("unknown")
        page.get_by_label("API key", exact=True).fill(secret)
        page.keyboard.press("Enter")
        expect(page.locator(".card")).to_have_count(12)
        expect(page.locator("#genres-Drama")).to_be_visible()
        # This server has no enhancer: nothing offers a description.
        expect(page.get_by_role("button", name="Describe")).to_have_count(0)
        assert page.evaluate("localStorage.length") == 0
        assert secret not in page.url
        page.reload()
        expect(page.locator(".card")).to_have_count(12)
        page.get_by_role("button", name="Forget API key").click()
        expect(page.get_by_label("API key", exact=True)).to_be_visible()
        page.close()


def test_degraded_answers_and_late_descriptions_say_so(open_page: Open) -> None:
    page = open_page()

    def degrade(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"degraded": ["enhancer"]})

    page.route("**/v1/search", degrade)
    page.locator("#query").fill("alone at sea")
    page.keyboard.press("Enter")
    expect(page.locator(".badge")).to_have_text("without enhancer")
