"""The web page where things are not as they should be: nothing found, titles that are unclear, items that attack, servers that are gone."""

import json
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Request, Route, expect

from matinee.settings.serving import KeySettings
from serve.api.auth import hash_key
from tests.waiting import until

if TYPE_CHECKING:
    from tests.serve.static.page_support import Web


def test_an_empty_result_says_what_to_relax(web: "Web") -> None:
    page = web.open("#q=dreams&genre=Western&language=ja&to=1930")
    expect(page.locator(".empty h2")).to_have_text("Nothing matches")
    expect(page.locator("#announce")).to_have_text("Nothing found")
    page.get_by_role("button", name="Clear language: Japanese").click()
    expect(page.locator(".empty")).to_be_visible()
    page.get_by_role("button", name="Clear all filters").click()
    expect(page.locator(".card").first).to_be_visible()


def test_an_ambiguous_title_asks_which_one(web: "Web") -> None:
    web.put({"id": "two-2002", "kind": "film", "title": "Two of a Kind", "year": 2002})
    web.put({"id": "two-1972", "kind": "film", "title": "Two of a Kind", "year": 1972})
    page = web.open(allowed="409")
    page.locator("#query").fill("two of a kind")
    page.get_by_role("option", name="find this title").click()
    expect(page.locator(".error")).to_have_attribute("data-code", "ambiguous_title")
    expect(page.locator(".request-id")).to_have_text(re.compile("Request .{8,}"))
    page.get_by_role("list", name="Candidates").get_by_role("button", name="1972").click()
    expect(page.locator(".chip-name")).to_have_text("Two of a Kind (1972)")
    expect(page.locator(".card")).to_have_count(12)


def test_an_item_cannot_run_or_draw_anything(web: "Web") -> None:
    evil = "<img src=x onerror=\"document.title='run'\">"
    [id] = web.put(
        {
            "id": "evil",
            "kind": "film",
            "title": evil,
            "overview": "<script>document.title='run'</script>",
            "genres": ["<b>Bold</b>"],
            "people": {"director": ["<i>Someone</i>"]},
        },
    )
    page = web.open(f"#similar={id}")
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


def test_a_stale_answer_never_replaces_a_newer_one(web: "Web") -> None:
    page = web.open()

    def is_slow(request: Request) -> bool:
        return request.url.endswith("/v1/search") and "slow" in (request.post_data or "")

    page.route("**/v1/search", lambda route: None if is_slow(route.request) else route.continue_())
    page.locator("#query").fill("slow question")
    with page.expect_request(is_slow):
        page.keyboard.press("Enter")
    expect(page.locator("#outcome")).to_have_attribute("aria-busy", "true")
    page.locator("#query").fill("dreams within dreams")
    with page.expect_event("requestfailed", is_slow) as aborted:
        page.keyboard.press("Enter")
    assert aborted.value.failure == "net::ERR_ABORTED"
    expect(page.locator(".card h2").first).to_contain_text("Inception")


def test_the_server_is_gone_and_comes_back(web: "Web") -> None:
    page = web.open(allowed="ERR_CONNECTION_REFUSED|ERR_FAILED")
    page.route("**/v1/**", lambda route: route.abort("connectionrefused"))
    page.locator("#query").fill("alone at sea")
    page.keyboard.press("Enter")
    expect(page.locator(".error")).to_have_attribute("data-code", "network")
    page.unroute("**/v1/**")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".card")).to_have_count(12)


def test_without_an_index_it_shows_the_command(web: "Web", local_graph: Any, tmp_path: Path) -> None:
    with local_graph.serve_app(lambda: local_graph.build_local_graph(tmp_path, films=())) as url:
        page = web.open(base=url, allowed="503")
        expect(page.locator(".error")).to_have_attribute("data-code", "index_absent")
        expect(page.locator(".error pre")).to_have_text(["matinee ingest FILE", "matinee index create"])
        page.close()


def test_a_key_is_asked_for_and_kept_in_this_tab_only(web: "Web", local_graph: Any, tmp_path: Path) -> None:
    secret = f"mat_{uuid.uuid4().hex}"
    keys = [KeySettings(name="reader", sha256=hash_key(secret), scopes=("read",)).model_dump()]
    settings = local_graph.local_settings(tmp_path, serving={"keys": keys})
    films = local_graph.demo_films()[:20]
    with local_graph.serve_app(lambda: local_graph.build_local_graph(tmp_path, films=films, settings=settings)) as url:
        page = web.open(base=url, allowed="401")
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


def test_degraded_answers_and_late_descriptions_say_so(web: "Web") -> None:
    page = web.open(allowed="504")

    def degrade(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"degraded": ["enhancer"]})

    page.route("**/v1/search", degrade)
    page.locator("#query").fill("alone at sea")
    page.keyboard.press("Enter")
    expect(page.locator(".badge")).to_have_text("without enhancer")
    late = {"code": "deadline", "message": "enhancer: no answer within the deadline", "request_id": "r-1"}
    page.route("**/v1/describe", lambda route: route.fulfill(status=504, json=late))
    page.get_by_role("button", name=re.compile("^Describe")).first.click()
    expect(page.locator(".described").first).to_have_text("enhancer: no answer within the deadline request r-1")


def test_what_is_clicked_is_told_with_the_token_of_its_answer(web: "Web", local_graph: Any, tmp_path: Path) -> None:
    settings = local_graph.local_settings(tmp_path, events={"uri": str(tmp_path / "events"), "flush_s": 0.01})
    make = lambda: local_graph.build_local_graph(tmp_path, films=local_graph.demo_films()[:12], settings=settings)  # noqa: E731
    with local_graph.serve_app(make) as url:
        page = web.open(base=url)
        first, second = (page.locator(".card").nth(i).get_attribute("data-id") for i in (0, 1))
        page.locator(".card").nth(0).get_by_role("button", name="More like this").click()
        web.settled(page)
        page.locator(f".card[data-id='{second}']").get_by_role("button", name="Similar").click()
        web.settled(page)
        told = until(lambda: len(seen := _told(tmp_path / "events")) == 2 and seen, "both are in the event log")
    assert told == {("liked", first), ("clicked", second)}


def _told(folder: Path) -> set[tuple[str, str]]:
    events = [json.loads(line) for path in folder.rglob("*.jsonl") for line in path.read_text().splitlines()]
    return {(event["event"], event["item"]) for event in events if "item" in event}


@pytest.mark.parametrize("prefix", ["", "/films"])
def test_the_api_page_works_and_asks_its_own_server_alone(web: "Web", prefix: str) -> None:
    """Behind a proxy that takes the prefix away; what goes to the root of the host is lost there."""

    def proxy(route: Route) -> None:
        path = route.request.url.removeprefix(web.url)
        if path.startswith(f"{prefix}/"):
            route.fulfill(response=route.fetch(url=web.url + path.removeprefix(prefix)))
        else:
            route.abort()

    page = web.blank()
    page.route("**/*", proxy)
    page.goto(f"{web.url}{prefix}/docs")
    page.locator(".opblock-summary-control", has_text="/livez").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table")).to_contain_text('"alive": true')
    expect(page.locator(".request-url")).to_contain_text(f"{web.url}{prefix}/livez")
