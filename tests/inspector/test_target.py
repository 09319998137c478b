"""Addresses below the inspector's root."""

from __future__ import annotations

import pytest

from unitwork._inspector.target import Target, path_below, target_of


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", Target("live", 0, False, 0)),
        ("live.json", Target("live", 0, True, 0)),
        ("timeline", Target("timeline", 0, False, 0)),
        ("unit/42", Target("unit", 42, False, 1)),
        ("unit/42.json", Target("unit", 42, True, 1)),
        ("outcomes.json", Target("outcomes", 0, True, 0)),
    ],
)
def test_finds_the_view(path: str, expected: Target) -> None:
    assert target_of(path, "text/html") == expected


@pytest.mark.parametrize(
    "path", ["unit/", "unit/x", "unit/²", "unit/1/2", "../x", "x.json"]
)
def test_finds_nothing_else(path: str) -> None:
    assert target_of(path, "") is None


def test_json_may_be_asked_for_by_the_accept_header() -> None:
    found = target_of("timeline", "application/json")

    assert found == Target("timeline", 0, True, 0)


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
