"""The errors: one root, as the drawing in the module has it, and all of them public."""

from __future__ import annotations

import pickle
import re

import pytest

import unitwork
from unitwork import errors

ERRORS = [
    getattr(errors, name) for name in errors.__all__ if not name.endswith("Warning")
]


@pytest.mark.parametrize("name", errors.__all__)
def test_is_public_and_documented(name: str) -> None:
    kind = getattr(errors, name)

    assert getattr(unitwork, name) is kind
    assert kind.__doc__


@pytest.mark.parametrize("kind", ERRORS)
def test_has_one_root(kind: type[Exception]) -> None:
    assert issubclass(kind, unitwork.UnitworkError)


@pytest.mark.parametrize("kind", ERRORS)
def test_is_drawn_where_it_belongs(kind: type[Exception]) -> None:
    (line,) = re.findall(rf"^.*\b{kind.__name__}\b.*$", str(errors.__doc__), re.M)
    depth = re.match(r"[│├└─ ]*", line)

    assert depth is not None
    assert len(depth[0]) // 4 == kind.__mro__.index(unitwork.UnitworkError)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (unitwork.UsageError, RuntimeError),
        (unitwork.MissingSessionError, RuntimeError),
        (unitwork.SessionEndedError, RuntimeError),
        (unitwork.PoolTimeoutError, TimeoutError),
        (unitwork.BlockingSessionWarning, UserWarning),
        (unitwork.SessionStateWarning, UserWarning),
    ],
)
def test_can_be_caught_as_what_python_has_for_it(
    kind: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(kind, builtin)


def test_wrong_use_is_not_to_be_confused_with_bad_luck() -> None:
    for kind in (
        unitwork.UnexpectedRollbackError,
        unitwork.CommitUnknownError,
        unitwork.PoolTimeoutError,
    ):
        assert not issubclass(kind, unitwork.UsageError)


def test_a_pool_timeout_says_when_to_come_back() -> None:
    assert unitwork.PoolTimeoutError("busy").retry_after == 1.0
    assert unitwork.PoolTimeoutError("busy", retry_after=2.5).retry_after == 2.5


def test_a_pool_timeout_survives_the_way_to_another_process() -> None:
    error = unitwork.PoolTimeoutError("busy", retry_after=2.5)

    copy = pickle.loads(pickle.dumps(error))  # our own bytes

    assert (str(copy), copy.retry_after) == ("busy", 2.5)


def test_everything_public_can_be_found() -> None:
    assert unitwork.__all__ == sorted(unitwork.__all__)
    for name in unitwork.__all__:
        assert hasattr(unitwork, name)
