"""One Chromium and one server for all tests of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from support.browsing import ServedShop, chromium, complaints_of, served


# No longer than that: Playwright keeps an event loop running in this thread.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def shop(postgresql: str) -> Iterator[ServedShop]:
    with served(postgresql) as shop:
        yield shop


@pytest.fixture
def open_page(browser: Browser, shop: ServedShop) -> Iterator[Callable[..., Page]]:
    """Opens a view; at the end no page has broken the policy, or complained."""
    pages: list[Page] = []
    complaints: list[list[str]] = []

    def open_page(view: str, *, may_complain: bool = False, **options: Any) -> Page:
        page = browser.new_page(**options)
        page.set_default_timeout(20_000)
        complaints.append([] if may_complain else complaints_of(page))
        pages.append(page)
        page.goto(shop.url + view)
        page.wait_for_selector("html[data-shown]")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == [[] for _ in pages]
