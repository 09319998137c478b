"""Runs the plan of an ending, until a cancellation may interrupt it."""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

from .._concurrency.shield import uninterrupted
from .._execution.async_runner import arun
from .._execution.plan import Plan
from .context import current, innermost
from .state import UnitState
from .unit import Unit

__all__ = ["patience_of", "run_ending"]

T = TypeVar("T")

_TIME_FOR_HOOKS = 0.5  # seconds, after a cancellation


def run_ending(
    unit: Unit, plan: Plan[T], context: Context | None = None
) -> Coroutine[Any, Any, T]:
    """Run *plan* to its end, in a context in which *unit* is the current one.

    A *context* that is given is one already.
    """
    if unit.known_blocks is not None:
        unit.known_blocks.end_requested()
    # A connection is the owner of its unit, which `innermost()` leads to.
    provider: object = current.get()
    inside = provider is unit.owner or innermost() is unit
    if context is None and not inside:
        context = copy_context()
        context.run(current.set, unit)
    return uninterrupted(arun(plan), lambda: patience_of(unit), context)


def patience_of(unit: Unit) -> float | None:
    """After how many seconds a cancellation that arrives now interrupts the ending.

    At once before COMMIT is sent. A hook that follows it may go on for a while, however
    many cancellations arrive. `None`: not at all.
    """
    unit.was_cancelled = True
    if unit.state is UnitState.ENDING:
        is_async = all(session.is_async for session in unit.sessions)
        return 0.0 if unit.in_hook or is_async else None
    return _TIME_FOR_HOOKS if unit.in_hook else None
