"""A real headless Chromium for the tests of the web page, and what every page must keep to.

Nothing on the console, no request to another host, no violation of the content security policy: checked by `Web.check` at a test's end.
Does not know what the page is for. Tests get it as the fixture `web` (`tests/conftest.py`).
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.waiting import HANG_S

CHROMIUM = Path(os.environ.get("MATINEE_TEST_CHROMIUM", "/usr/bin/chromium"))
ARGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGS += ["--disable-component-update", "--disable-sync"]
WAIT_MS = 1000 * HANG_S


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser. Without one the test is skipped; where `CI` is set, it fails."""
    if not CHROMIUM.exists():
        message = f"{CHROMIUM} is missing: install Debian's chromium, or name another one in MATINEE_TEST_CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGS, timeout=WAIT_MS)
        yield browser
        browser.close()


class Watch:
    """What a page did that it must not do; `allowed` is a pattern of the console messages that a test provokes."""

    def __init__(self, page: Page, origin: str, allowed: str | None) -> None:
        self._seen: list[str] = []
        self._origin = origin
        self._allowed = allowed
        page.on("console", self._console)
        page.on("pageerror", lambda error: self._seen.append(f"uncaught: {error}"))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        # Violations of the content security policy come here, too.
        self._seen.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((f"{self._origin}/", "data:")):
            self._seen.append(f"asked another host: {request.url}")

    @property
    def problems(self) -> list[str]:
        return [seen for seen in self._seen if not (self._allowed and re.search(self._allowed, seen))]


class Web:
    """Pages of one test, each in a browser context of its own."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.url = url
        self._browser = browser
        self._opened: list[tuple[BrowserContext, Watch]] = []

    def open(self, path: str = "", *, base: str | None = None, width: int = 1280, allowed: str | None = None) -> Page:
        """A page with its first answer, or its first error, on it; `path` is mostly a hash."""
        page = self.blank(base=base, width=width, allowed=allowed)
        page.goto(f"{base or self.url}/{path}")
        self.settled(page)
        return page

    def blank(self, *, base: str | None = None, width: int = 1280, allowed: str | None = None) -> Page:
        """A page that was sent nowhere yet."""
        context = self._browser.new_context(viewport={"width": width, "height": 900})
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        self._opened.append((context, Watch(page, base or self.url, allowed)))
        return page

    def settled(self, page: Page) -> None:
        """Wait until the page shows an answer or an error, and waits for nothing."""
        expect(page.locator("#outcome")).not_to_have_attribute("aria-busy", "true")

    def titles(self, page: Page) -> list[str]:
        self.settled(page)
        return page.locator(".card h2").all_inner_texts()

    def put(self, *items: dict[str, Any]) -> list[str]:
        """Add items to the shared catalogue; returns their ids."""
        answer = httpx.put(f"{self.url}/v1/items", json={"items": list(items)}, timeout=HANG_S).raise_for_status()
        return [item["id"] for item in answer.json()["items"]]

    def check(self) -> None:
        problems = [problem for _, watch in self._opened for problem in watch.problems]
        for context, _ in self._opened:
            context.close()
        assert problems == []
