"""The page over a catalogue that is no film's: its declared attributes as boxes, ranges and an order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
