"""The pages of the inspector in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from support.browsing import ServedShop

OpenPage = Callable[..., Page]
VIEWS = ["", "timeline", "outcomes"]
NARROW = {"viewport": {"width": 400, "height": 800}}
WIDTH = "document.documentElement.scrollWidth"


def test_a_unit_is_there_while_it_is_open_and_then_gone(
    shop: ServedShop, open_page: OpenPage
) -> None:
    page = open_page("")
    expect(page.get_by_text("No unit is open.")).to_be_visible()

    request = shop.start("POST", "/stock/item 1/count?seconds=60")
    row = page.get_by_role("row").filter(has_text="POST /stock/{item}/count")
    expect(row).to_contain_text("idle in transaction")
    expect(row).to_contain_text("shop.py:")
    expect(page.locator(".cell.idle")).to_have_count(1)
    request.cancel()

    expect(row).to_have_count(0)
    expect(page.locator(".cell.idle")).to_have_count(0)


def test_a_blocked_unit_leads_to_the_one_that_blocks_it(
    shop: ServedShop, open_page: OpenPage
) -> None:
    page = open_page("")
    first = shop.start("POST", "/stock/item 2/count?seconds=60")
    expect(page.locator(".cell.idle")).to_have_count(1)
    second = shop.start("POST", "/stock/item 2/count?seconds=0")

    row = page.get_by_role("row").filter(has_text="blocked by a lock")
    blocker = row.get_by_role("link", name="unit ")
    expect(blocker.last).to_be_visible()
    blocker.last.click()
    expect(page.locator("tr:target")).to_contain_text("idle in transaction")
    first.cancel()
    assert second.result(60).status_code == 200


def test_a_commit_before_the_response_is_seen_and_said(
    shop: ServedShop, open_page: OpenPage
) -> None:
    assert shop.call("POST", "/orders") == 201

    page = open_page("timeline?route=POST+%2Forders")
    page.get_by_role("link", name="POST /orders").first.click()

    expect(page.get_by_text("before the response started")).to_be_visible()
    left = "el => el.getBoundingClientRect().x"
    commit = page.locator(".lane .commit").evaluate(left)
    assert commit < page.locator(".lane .start").first.evaluate(left)


def test_a_lost_commit_is_shown_as_unknown(
    shop: ServedShop, open_page: OpenPage
) -> None:
    page = open_page("timeline?outcome=unknown")
    before = page.locator("tr.is-unknown").count()

    shop.lose_next_commit()
    assert shop.call("POST", "/orders") == 500

    expect(page.locator("tr.is-unknown")).to_have_count(before + 1)
    newest = page.locator("tr.is-unknown").first
    expect(newest).to_contain_text("unknown")
    expect(newest.locator(".bar .unknown")).to_have_count(1)
    expect(newest.locator(".bar .commit")).to_have_count(0)
    newest.get_by_role("link").click()
    expect(
        page.get_by_text("Nothing confirms that the change is stored")
    ).to_be_visible()


def test_filters_are_in_the_address(shop: ServedShop, open_page: OpenPage) -> None:
    shop.call("POST", "/orders/1/cancel")
    shop.call("GET", "/orders")
    page = open_page("timeline")

    page.get_by_label("Outcome", exact=True).select_option("rolled back")
    expect(page.locator("tr.is-committed")).to_have_count(0)
    expect(page.locator("tr.is-rolled-back").first).to_be_visible()
    assert page.url.endswith("?outcome=rolled+back")
    page.reload()
    expect(page.get_by_label("Outcome", exact=True)).to_have_value("rolled back")
    expect(page.locator("tr.is-committed")).to_have_count(0)

    page.get_by_label("Route").select_option("GET /orders")
    expect(page.get_by_text("No recorded unit matches the filter.")).to_be_visible()


def test_works_by_keyboard(shop: ServedShop, open_page: OpenPage) -> None:
    shop.call("GET", "/orders")
    page = open_page("")

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Live")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Timeline")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/timeline")
    page.locator("a.name").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/unit/*")
    expect(page.get_by_role("table", name="Events")).to_be_visible()


def test_what_has_the_focus_keeps_it_when_the_view_is_renewed(
    shop: ServedShop, open_page: OpenPage
) -> None:
    shop.call("GET", "/orders")
    page = open_page("timeline")
    link = page.locator("a.name").first
    link.focus()
    focused = link.get_attribute("id")

    shop.call("GET", "/orders")
    expect(page.locator("a.name").first).not_to_have_attribute("id", focused or "")

    expect(page.locator(f"#{focused}")).to_be_focused()


def test_pause_stops_it_until_it_is_pressed_again(
    shop: ServedShop, open_page: OpenPage
) -> None:
    page = open_page("timeline")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#state")).to_have_text("Paused")
    shown = page.locator("a.name").first.get_attribute("id")
    shop.call("GET", "/orders")

    with page.expect_response("**/timeline.json*") as answer:
        page.get_by_role("button", name="Resume").click()
    assert answer.value.ok
    expect(page.locator("a.name").first).not_to_have_attribute("id", shown or "")


@pytest.mark.parametrize("view", VIEWS)
def test_has_landmarks_and_one_heading(open_page: OpenPage, view: str) -> None:
    page = open_page(view)

    for role in ("banner", "navigation", "main", "contentinfo"):
        expect(page.get_by_role(role)).to_have_count(1)
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert page.locator("nav a[aria-current=page]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_follows_the_colours_of_the_system(open_page: OpenPage, scheme: str) -> None:
    page = open_page("outcomes", color_scheme=scheme)

    light = page.evaluate(
        "getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)'"
    )
    assert light is (scheme == "light")


@pytest.mark.parametrize("view", VIEWS)
def test_needs_no_sideways_scrolling_on_a_telephone(
    shop: ServedShop, open_page: OpenPage, view: str
) -> None:
    shop.call("POST", "/orders")
    page = open_page(view, **NARROW)

    assert page.evaluate(WIDTH) <= 400


def test_a_unit_needs_no_sideways_scrolling_on_a_telephone(
    shop: ServedShop, open_page: OpenPage
) -> None:
    shop.call("POST", "/orders")
    page = open_page("timeline", **NARROW)
    page.locator("a.name").first.click()
    expect(page.get_by_role("table", name="Events")).to_be_visible()

    assert page.evaluate(WIDTH) <= 400


def test_the_json_is_at_the_address_that_the_page_names(open_page: OpenPage) -> None:
    page = open_page("outcomes")

    address = page.get_by_role("link", name="This view as JSON").evaluate("a => a.href")

    assert "routes" in page.context.request.get(address).json()


def test_a_client_that_is_not_allowed_finds_nothing(
    shop: ServedShop, open_page: OpenPage
) -> None:
    page = open_page("", may_complain=True)  # of the status
    context = page.context
    shop.is_allowed = False
    try:
        refused = [context.request.get(shop.url + view) for view in VIEWS]
        unknown = context.request.get(shop.url.replace("/units/", "/nothing"))
        expect(page.locator("#state")).to_have_text("No access any more")
    finally:
        shop.is_allowed = True

    assert [each.status for each in refused] == [404] * len(VIEWS)
    assert {each.text() for each in refused} == {unknown.text()}
