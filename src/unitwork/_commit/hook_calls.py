"""Calls the hooks of a unit, each within its time."""

from __future__ import annotations

import logging
import math
import time
from asyncio import CancelledError
from collections.abc import Iterable, Sequence
from typing import Protocol

from .._execution.plan import HookCall, HookTimeoutError, Interrupted, Plan
from .._observing.unit_events import HookFailed
from .._observing.unit_report import UnitReport
from .._session.unit_session import UnitSession
from ..errors import UsageError
from ..outcome import Outcome
from .hooks import Hook, Hooks
from .observation import observation

__all__ = ["HookedUnit", "call_after", "call_before_commit", "end_timeout"]

log = logging.getLogger("unitwork")

_DEFAULT = 5.0  # seconds, that of the settings
_LEAST = 0.5  # seconds for on_commit hooks, even if COMMIT has used the deadline up
_TOO_SLOW = (
    "the before_commit hook {name} has kept the transaction open for more than "
    "{limit:g} seconds (end_timeout), so it was rolled back. Do slow work before the "
    "unit ends, or in on_commit; or set a longer DatabaseSettings(end_timeout=...)"
)


class HookedUnit(Protocol):
    """A unit whose hooks are called."""

    in_hook: bool
    """Whether a hook is running: it may be interrupted, also with sync sessions."""
    was_cancelled: bool
    """Whether a cancellation has arrived that could not interrupt the ending."""

    report: UnitReport | None
    """What reports its events, if one of its databases is observed."""

    @property
    def sessions(self) -> Iterable[UnitSession]: ...

    @property
    def hooks_until(self) -> float | None:
        """When the deadline ends, by `time.monotonic()`."""
        ...

    def sessions_to_end(self) -> list[UnitSession]: ...


def call_before_commit(unit: HookedUnit, hooks: Hooks) -> Plan[None]:
    """Call them in turn, within `end_timeout`: they keep a transaction open."""
    limit = end_timeout(unit.sessions)
    until = time.monotonic() + limit
    for hook in hooks.take_before_commit():
        left = max(until - time.monotonic(), 0.0)
        try:
            yield from _call(unit, hook, left, unit.sessions_to_end())
        except HookTimeoutError as error:
            raise UsageError(_TOO_SLOW.format(name=hook.name, limit=limit)) from error


def call_after(unit: HookedUnit, hooks: Hooks, outcome: Outcome) -> Plan[None]:
    """Call those that wait for *outcome*, which stands whatever they do.

    One that fails is logged, and the others are called. Those that a cancellation or
    the deadline leaves no time for are logged, and not called.
    """
    until = _end_of_hooks(unit, outcome)
    for hook in hooks.take(outcome):
        if hook.is_on_commit and observation.captures(unit, hook.call):
            continue
        left = until - time.monotonic()
        if left <= 0:
            log.error("%s was not called: there was no time left", hook.name)
            _report_failure(unit, hook, None)
            continue
        try:
            yield from _call(unit, hook, None if math.isinf(left) else left)
        except Interrupted as interruption:
            until = -math.inf
            if not interruption.hook_ended:
                log.error("%s was interrupted by a cancellation", hook.name)
                _report_failure(unit, hook, interruption)
            elif interruption.__cause__ is not None:
                _log_failure(unit, hook, interruption.__cause__)
        except (Exception, CancelledError) as error:
            _log_failure(unit, hook, error)


def _log_failure(unit: HookedUnit, hook: Hook, error: BaseException) -> None:
    log.error("%s failed after the unit had ended", hook.name, exc_info=error)
    _report_failure(unit, hook, error)


def _report_failure(unit: HookedUnit, hook: Hook, error: BaseException | None) -> None:
    if unit.report is not None:
        unit.report.emit(HookFailed, hook.name, error)


def _call(
    unit: HookedUnit,
    hook: Hook,
    limit: float | None,
    sessions: Sequence[UnitSession] = (),
) -> Plan[None]:
    unit.in_hook = True
    try:
        yield HookCall(hook.call, limit, sessions)
    finally:
        unit.in_hook = False


def _end_of_hooks(unit: HookedUnit, outcome: Outcome) -> float:
    """The deadline; but those that follow a rollback may still clean up after it."""
    now, patience = time.monotonic(), end_timeout(unit.sessions)
    until = math.inf if unit.hooks_until is None else unit.hooks_until
    least = _LEAST if outcome is Outcome.COMMITTED else patience
    until = max(until, now + least)
    return min(until, now + patience) if unit.was_cancelled else until


def end_timeout(sessions: Iterable[UnitSession]) -> float:
    """The longest of theirs; the default without any: a hook may still begin one."""
    limits = [session.settings.end_timeout for session in sessions]
    return max(limits, default=_DEFAULT)
