"""Reports the events of one connection, while a unit holds it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from .commit_report import CommitReport
from .subjects import CallSite
from .unit_events import (
    CommitAnswered,
    CommitSent,
    ConnectionReturned,
    ConnectionTaken,
    HoldWarning,
    TransactionBegun,
)
from .unit_report import UnitReport

__all__ = ["HoldReport"]

T = TypeVar("T")


class HoldReport:
    """What reports the events of one connection of a *database* to its unit's."""

    __slots__ = ("_database", "_report", "pool")

    def __init__(self, report: UnitReport, database: str, pool: str) -> None:
        self._report = report
        self._database = database
        self.pool = pool
        """The name of the pool that it came from."""

    def taken(self, call_site: tuple[Any, int] | None) -> None:
        """Report that the unit has it now; *call_site*: the code, the instruction."""
        report = self._report
        if report.wants(ConnectionTaken):
            site = None if call_site is None else CallSite(*call_site)
            waited = report.take_waited(self._database)
            report.emit(ConnectionTaken, self._database, self.pool, waited, site)

    def begun(self, duration: float) -> None:
        self._report.emit(TransactionBegun, self._database, duration)

    def executed(self, duration: float, context: Any, statement: str) -> None:
        """Report a statement that is over, unless it is one of unitwork's own."""
        if not context.execution_options.get("unitwork_own"):
            self._report.statement_executed(self._database, duration, statement)

    def commit(self, send: Callable[[], T]) -> T:
        """Call *send*, which sends COMMIT."""
        emit, error = self._report.emit, None
        emit(CommitSent, self._database)
        sent_at = time.monotonic()
        try:
            return send()
        except BaseException as raised:
            error = raised
            raise
        finally:
            duration = time.monotonic() - sent_at
            self._report.commit_time += duration
            emit(CommitAnswered, self._database, duration, error)
            del error

    def commit_in_phases(self) -> CommitReport:
        """What reports a COMMIT that consists of several messages."""
        return CommitReport(self._report, self._database)

    def returned(self, held: float, idle: float) -> None:
        self._report.emit(ConnectionReturned, self._database, held, idle)

    def held_too_long(
        self, held: float, idle: float, call_site: tuple[Any, int] | None
    ) -> None:
        site = None if call_site is None else CallSite(*call_site)
        self._report.emit(HoldWarning, self._database, held, idle, site)
