"""The inspector, as the page mounts it."""

from __future__ import annotations

from support.manual import Page


def test_shows_the_route_to_those_who_may_look(page: Page) -> None:
    main = page.run()

    [route] = main.allowed.json()["routes"]
    assert (main.refused.status_code, main.refused.json()) == (
        404,
        {"detail": "Not Found"},
    )
    assert (route["name"], route["units"]) == ("GET /items/{item_id}", 1)
