"""The page over a catalogue that is no film's: its declared attributes as boxes, ranges and an order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from matinee.catalogue.declaration import read_declaration
from matinee.catalogue.reader import read_items

GROCERIES = Path(__file__).parents[3] / "examples" / "groceries"


@pytest.fixture(scope="module")
def shop_url(local_graph: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    items = list(read_items(GROCERIES / "groceries.jsonl"))
    attributes = read_declaration(GROCERIES / "attributes.yaml", {})
    home = tmp_path_factory.mktemp("shop")
    with local_graph.serve_app(lambda: local_graph.build_local_graph(home, films=items, attributes=attributes)) as url:
        yield url


def test_boxes_ranges_and_order(web: Any, shop_url: str) -> None:
    page = web.open("#q=milk", base=shop_url)
    page.locator("#storage-chilled").check()
    expect(page.locator(".card")).to_have_count(12)
    expect(page.locator(".details", has_text="chilled")).to_have_count(12)
    assert "is.storage=chilled" in page.url
    page.locator("#sugar_g-to").fill("1")
    page.keyboard.press("Tab")
    expect(page.locator(".card")).not_to_have_count(12)
    web.settled(page)
    page.locator("#sort").select_option("kcal_per_100.desc")
    web.settled(page)
    assert "in.sugar_g=..1" in page.url
    energy = [float(text) for text in page.locator(".details div", has_text="Kcal per 100").locator("dd").all_inner_texts()]
    assert energy == sorted(energy, reverse=True)
    assert len(energy) > 1
    page.reload()
    web.settled(page)
    expect(page.locator("#storage-chilled")).to_be_checked()
    expect(page.locator("#sugar_g-to")).to_have_value("1")
    page.get_by_role("button", name="Clear filters").click()
    web.settled(page)
    expect(page.locator(".details", has_text="ambient").first).to_be_visible()


def test_of_several_catalogues_one_is_chosen(web: Any, shop_url: str) -> None:
    page = web.open("#q=milk", base=shop_url)
    choice = page.locator("#catalogues")
    expect(choice).to_be_hidden()
    attributes = {
        "author": {"type": "keyword", "source": "people.author", "many": True, "facet": True},
        "year": {"type": "datetime", "source": "extra.printed"},
    }
    assert httpx.post(f"{shop_url}/v1/catalogues", json={"name": "books", "attributes": attributes}).status_code == 201
    books = [
        {"id": f"b{n}", "title": f"Book {n}", "people": {"author": [f"Writer {n}"]}, "extra": {"printed": f"2024-05-1{n}T12:00:00Z"}}
        for n in range(3)
    ]
    assert httpx.put(f"{shop_url}/v1/catalogues/books/items", json={"items": books}).status_code == 200
    page.reload()
    web.settled(page)
    choice.select_option("books")
    expect(page.locator("#catalogue")).to_have_text("books · 3 items")
    web.settled(page)
    assert page.url.endswith("#catalogue=books")
    expect(page.locator("#query")).to_have_value("")
    page.locator("#query").fill("book")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(3)
    page.locator("#year-to").fill("2024-05-11")
    page.keyboard.press("Tab")
    expect(page.locator(".card")).to_have_count(2)
    page.locator("#home").click()
    web.settled(page)
    assert page.url.endswith("#catalogue=books")
    page.reload()
    web.settled(page)
    expect(choice).to_have_value("books")
    choice.select_option("demo")
    expect(page.locator("#catalogue")).to_have_text("demo · 40 items")
    assert httpx.delete(f"{shop_url}/v1/catalogues/books").status_code == 200
