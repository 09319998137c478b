"""Events as values: named fields, equality, no changes."""

from __future__ import annotations

import pickle
from dataclasses import (
    MISSING,
    FrozenInstanceError,
    asdict,
    fields,
    is_dataclass,
    replace,
)
from typing import Any

import pytest

from unitwork.events import CommitSent, ConnectionClosed, Event, StatementExecuted

CLOSED = ConnectionClosed(1.5, None, "d", "p")


def test_its_fields_may_be_given_by_name() -> None:
    assert ConnectionClosed(at=1.5, unit=None, database="d", pool="p") == CLOSED


def test_a_field_that_is_missing_is_an_error() -> None:
    make: Any = ConnectionClosed

    with pytest.raises(TypeError, match="at, unit, database, pool"):
        make(1.5, None)


@pytest.mark.parametrize("more", [("d", "p", 1), ("d", "p", "x", "y")])
def test_a_field_too_many_is_an_error(more: tuple[object, ...]) -> None:
    make: Any = ConnectionClosed

    with pytest.raises(TypeError):
        make(1.5, None, *more)


def test_a_field_that_is_given_twice_is_an_error() -> None:
    make: Any = ConnectionClosed

    with pytest.raises(TypeError):
        make(1.5, None, "d", "p", database="other")


def test_a_field_with_a_default_may_be_left_out() -> None:
    event: Any = StatementExecuted
    assert event(1.5, None, "default", 0.1).statement == ""


def test_events_of_two_kinds_are_never_equal() -> None:
    sent: Any = CommitSent
    assert sent(1.5, None, "d") != CLOSED


def test_it_can_not_be_changed() -> None:
    event: Any = CLOSED

    with pytest.raises(FrozenInstanceError):
        event.at = 2.0
    with pytest.raises(FrozenInstanceError):
        del event.at


def test_dataclasses_takes_it_for_a_frozen_dataclass() -> None:
    event: Any = CLOSED

    assert is_dataclass(ConnectionClosed)
    assert asdict(event) == {"at": 1.5, "unit": None, "database": "d", "pool": "p"}
    assert replace(event, at=2.0) == ConnectionClosed(2.0, None, "d", "p")
    assert [each.name for each in fields(event)] == [
        "at",
        "unit",
        "database",
        "pool",
    ]


def test_dataclasses_knows_the_defaults_of_its_fields() -> None:
    event: Any = StatementExecuted
    defaults = {each.name: each.default for each in fields(event)}

    assert (defaults["statement"], defaults["at"]) == ("", MISSING)


def parts_of(event: Event) -> tuple[float, str] | None:
    match event:
        case ConnectionClosed(at, None, database, "p"):
            return at, database
        case _:
            return None


def test_percent_needs_a_tuple_around_it() -> None:
    line, event = "%s", CLOSED

    assert line % (event,) == repr(event)
    with pytest.raises(TypeError):
        assert line % event


def test_it_can_be_matched_copied_and_printed() -> None:
    assert parts_of(CLOSED) == (1.5, "d")
    assert pickle.loads(pickle.dumps(CLOSED)) == CLOSED
    named = "at=1.5, unit=None, database='d', pool='p'"
    assert repr(CLOSED) == f"ConnectionClosed({named})"
