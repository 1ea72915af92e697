"""The web page in a real Chromium, against the whole graph in one process: what people do with it, by mouse, by keyboard, on a phone.

Does not test rankings, nor errors (`test_page_states`).
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from matinee.items import Item

if TYPE_CHECKING:
    from tests.serve.static.page_support import Web


def test_first_visit_shows_items_and_examples_to_click(web: "Web") -> None:
    page = web.open()
    expect(page.locator(".card")).to_have_count(12)
    expect(page.locator("#catalogue")).to_contain_text("demo")
    page.get_by_role("button", name="alone at sea").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Results for “alone at sea”")
    expect(page.locator("#query")).to_have_value("alone at sea")
    expect(page.locator(".score-type").first).to_have_text("linear")
    expect(page.locator("#intro")).to_be_hidden()


def test_type_ahead_and_the_whole_flow_by_keyboard(web: "Web") -> None:
    page = web.open()
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
    web.settled(page)
    assert "q=a+quiet+town" in page.url
    assert "like=" in page.url
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Remove like: Inception (2010)")).to_be_focused()
    page.keyboard.press("Delete")
    expect(page.locator(".chip")).to_have_count(0)
    expect(box).to_be_focused()
    expect(page.get_by_role("heading", level=1)).to_have_text("Results for “a quiet town”")


def test_enter_searches_and_says_how_long_it_took(web: "Web") -> None:
    page = web.open()
    page.locator("#query").fill("dreams within dreams")
    page.keyboard.press("Enter")
    expect(page.locator(".card h2").first).to_contain_text("Inception")
    expect(page.locator(".stages")).to_have_text(re.compile(r"server [\d.,]+ ms \(.*retrieve [\d.,]+"))
    expect(page.locator(".timing")).to_have_text(re.compile(r"[\d.,]+ ms"))
    page.get_by_label("Words", exact=False).and_(page.locator("#mode-sparse")).check()
    expect(page.locator(".score-type").first).to_have_text("bm25")
    expect(page.locator("#mode-sparse")).to_be_focused()


def test_likes_and_dislikes_from_cards(web: "Web") -> None:
    page = web.open("#like=Inception")
    first, second = web.titles(page)[:2]
    page.locator(".card").nth(0).get_by_role("button", name="More like this").click()
    expect(page.locator(".chip.likes")).to_have_count(2)
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    assert first not in web.titles(page)
    page.locator(".card", has_text=second).get_by_role("button", name="Not for me").click()
    expect(page.locator(".chip.dislikes")).to_have_count(1)
    shown = web.titles(page)
    assert second not in shown
    assert len(shown) == 12
    expect(page.locator(".reason")).to_have_count(12)
    page.get_by_role("button", name="Remove dislike").click()
    expect(page.locator(".chip")).to_have_count(2)


def test_similar_and_describe(web: "Web") -> None:
    page = web.open("#q=dreams+within+dreams")
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


def test_filters_years_and_diversity(web: "Web") -> None:
    page = web.open("#like=Inception")
    plain = web.titles(page)
    page.locator("#genres-Comedy").check()
    expect(page.locator(".facts", has_text="Comedy")).to_have_count(12)
    expect(page.locator("#genres-Comedy")).to_be_focused()
    page.locator("#language").select_option("fr")
    expect(page.locator(".facts", has_not_text="French")).to_have_count(0)
    page.locator("#year-from").fill("1990")
    page.keyboard.press("Tab")
    web.settled(page)
    assert "from=1990" in page.url
    assert all(int(title[-4:]) >= 1990 for title in web.titles(page))
    page.locator("#year-to").fill("1950")
    page.keyboard.press("Tab")
    expect(page.locator("#years-problem")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".card")).to_have_count(12)
    assert web.titles(page) == plain
    page.locator("#diversity").focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".field-value")).to_contain_text("0.8")
    web.settled(page)
    expect(page.locator(".card h2").nth(1)).not_to_have_text(plain[1])
    assert "diversity=0.8" in page.url


def test_back_restores_what_was_asked(web: "Web") -> None:
    page = web.open("#q=alone+at+sea")
    first = web.titles(page)
    page.locator("#genres-Drama").check()
    expect(page).to_have_url(re.compile("genre=Drama"))
    web.settled(page)
    page.locator(".card").first.get_by_role("button", name="Similar").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Similar to")
    web.settled(page)
    page.go_back()
    expect(page.locator("#query")).to_have_value("alone at sea")
    expect(page.locator("#genres-Drama")).to_be_checked()
    page.go_back()
    expect(page.locator("#genres-Drama")).not_to_be_checked()
    expect(page.locator(".card h2").first).to_have_text(first[0])
    assert web.titles(page) == first
    page.go_forward()
    expect(page.locator("#genres-Drama")).to_be_checked()


def test_show_more_keeps_the_place(web: "Web") -> None:
    page = web.open("#like=Inception")
    before = web.titles(page)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".card")).to_have_count(24)
    assert web.titles(page)[:12] == before
    expect(page.locator(".card h2").nth(12)).to_be_focused()


@pytest.mark.parametrize(
    "path", ["", "#like=Inception&like=Amélie&dislike=Titanic (1997)", "#q=dreams&genre=Western&to=1900", "#like=xyzzy"]
)
def test_a_phone_needs_no_sideways_scrolling(web: "Web", path: str) -> None:
    web.put({"id": "long", "kind": "film", "title": "Inception " + "Looooooooong" * 30, "genres": ["Drama"]})
    page = web.open(path, width=360, allowed="404|409")
    page.locator("summary").click()
    page.locator("#query").fill("incep")
    expect(page.get_by_role("option").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    beyond = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML)"
    assert page.evaluate(beyond) == []


def test_kinds_and_roles_come_from_the_data(web: "Web", local_graph: Any, tmp_path: Path) -> None:
    book = Item(kind="book", title="The Deep", year=1999, genres=("Essay",), people={"co_author": ("A. Writer",)}, language="fr")
    films = [*local_graph.demo_films()[:20], book]
    with local_graph.serve_app(lambda: local_graph.build_local_graph(tmp_path, films=films)) as url:
        page = web.open(base=url)
        page.locator("#kind-book").check()
        expect(page.locator(".card")).to_have_count(1)
        expect(page.locator(".card .facts")).to_have_text("Book · Essay · French")
        expect(page.locator(".card dt")).to_have_text("Co author")
        page.close()
