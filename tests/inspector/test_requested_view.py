"""Addresses below the inspector's root."""

from __future__ import annotations

import pytest

from unitwork._inspector.requested_view import RequestedView, path_below, requested_view


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", RequestedView("live", 0, False, 0)),
        ("live.json", RequestedView("live", 0, True, 0)),
        ("timeline", RequestedView("timeline", 0, False, 0)),
        ("unit/42", RequestedView("unit", 42, False, 1)),
        ("unit/42.json", RequestedView("unit", 42, True, 1)),
        ("outcomes.json", RequestedView("outcomes", 0, True, 0)),
    ],
)
def test_finds_the_view(path: str, expected: RequestedView) -> None:
    assert requested_view(path, "text/html") == expected


@pytest.mark.parametrize(
    "path", ["unit/", "unit/x", "unit/²", "unit/1/2", "../x", "x.json"]
)
def test_finds_nothing_else(path: str) -> None:
    assert requested_view(path, "") is None


def test_json_may_be_asked_for_by_the_accept_header() -> None:
    found = requested_view("timeline", "application/json")

    assert found == RequestedView("timeline", 0, True, 0)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"path": "/units/x", "root_path": "/units"}, ("/units", "/x")),
        ({"path": "/units", "root_path": "/units"}, ("/units", "")),
        ({"path": "/x", "root_path": "/units"}, ("/units", "/x")),  # older servers
        ({"path": "/unitsx", "root_path": ""}, ("", "/unitsx")),
    ],
)
def test_finds_where_it_is_mounted(
    scope: dict[str, str], expected: tuple[str, str]
) -> None:
    assert path_below(scope) == expected
