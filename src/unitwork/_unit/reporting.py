"""What a unit reports to the observers of its databases, and when."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from .._commit.observation import observation
from .._observing.audience import audience_of
from .._observing.registry import everywhere
from .._observing.subjects import UnitInfo
from .._observing.unit_events import UnitBegun, UnitEnded, UnitSettled
from .._observing.unit_report import UnitReport, next_unit_id
from .._session.database_core import DatabaseCore
from .._session.owner import SessionOwner
from .._session.unit_session import UnitSession
from .._transaction.hold import NO_USE
from ..errors import CommitUnknownError, PartialCommitError
from ..outcome import Outcome
from .attempts import Attempt
from .decision import Decision
from .owner import UnitOwner
from .sessions import Sessions

__all__ = ["close_reported", "open_report", "report_settled", "report_without_ending"]


class _Unit(SessionOwner[UnitSession], Protocol):
    """A unit, which imports this module and not the other way round."""

    databases: Mapping[str, DatabaseCore]
    decision: Decision
    end_error: BaseException | None
    outcome: Outcome | None
    reason: str
    sessions: Sessions
    unclear_commit: CommitUnknownError | PartialCommitError | None

    @property
    def attempt(self) -> Attempt: ...

    @property
    def owner(self) -> UnitOwner: ...


def open_report(unit: _Unit, parent: UnitReport | None) -> UnitReport | None:
    """What reports the events of *unit*; `None` if none of its databases is observed.

    Its first event is reported.
    """
    databases = dict.fromkeys(unit.databases.values())
    audience = audience_of(
        [everywhere.audience, *(each.observers.audience for each in databases)]
    )
    if audience is None:
        return None
    owner = unit.owner
    info = UnitInfo(
        id=next_unit_id(),
        kind=owner.kind,
        databases=tuple(each.name for each in databases),
        parent=None if parent is None else parent.unit.id,
        attempt=unit.attempt.number,
        method=owner.method,
        path=owner.path,
        route=None,
        started_at=time.time(),
        started=time.monotonic(),
    )
    report = UnitReport(info, audience, owner.find_route)
    report.emit(UnitBegun)
    return report


def report_settled(unit: _Unit, report: UnitReport) -> None:
    """An ending is over, and what it has found is the outcome."""
    if unit.outcome is not None:
        report.emit(UnitSettled, unit.outcome, unit.reason, _error_of(unit, report))


def report_without_ending(unit: _Unit) -> None:
    """Report a unit that closes without an ending of its own."""
    if (observer := observation.observer) is not None:
        observer.unit_ended(unit)
    if unit.report is not None:
        report_settled(unit, unit.report)


def close_reported(unit: _Unit, report: UnitReport) -> None:
    """Close the sessions; report the end after that, as they return connections."""
    use = unit.sessions.use if report.wants(UnitEnded) else NO_USE
    try:
        unit.sessions.close(unit)
    finally:
        report.emit(
            UnitEnded,
            unit.outcome or Outcome.EMPTY,
            unit.reason,
            _error_of(unit, report),
            time.monotonic() - report.unit.started,
            use,
        )
        report.ended()


def _error_of(unit: _Unit, report: UnitReport) -> BaseException | None:
    error = unit.unclear_commit or unit.end_error or unit.decision.failure
    return error or report.error
