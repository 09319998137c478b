"""Hooks, and a cancellation of the ending: what the log says of them."""

from __future__ import annotations

import pytest

from unitwork import Outcome
from unitwork._commit.hook_calls import call_after
from unitwork._commit.hooks import Hook, Hooks
from unitwork._execution.plan import Interrupted
from unitwork._unit.unit import Unit


def log_of(unit: Unit, interruption: Interrupted, log: pytest.LogCaptureFixture) -> str:
    """Interrupt the first of two hooks."""
    hooks = Hooks()
    hooks.on_commit.extend(Hook(call, ()) for call in (first, second))
    plan = call_after(unit, hooks, Outcome.COMMITTED)
    next(plan)
    with pytest.raises(StopIteration):
        plan.throw(interruption)
    return " / ".join(record.getMessage() for record in log.records)


def first() -> None: ...


def second() -> None: ...


def test_of_one_that_was_broken_off(
    unit: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    assert log_of(unit, Interrupted(), caplog) == (
        "first was interrupted by a cancellation / "
        "second was not called: there was no time left"
    )


def test_of_one_that_had_ended(unit: Unit, caplog: pytest.LogCaptureFixture) -> None:
    interruption = Interrupted(hook_ended=True)

    assert log_of(unit, interruption, caplog) == (
        "second was not called: there was no time left"
    )


def test_of_one_that_had_failed(unit: Unit, caplog: pytest.LogCaptureFixture) -> None:
    interruption = Interrupted(hook_ended=True)
    interruption.__cause__ = LookupError()

    assert log_of(unit, interruption, caplog) == (
        "first failed after the unit had ended / "
        "second was not called: there was no time left"
    )
