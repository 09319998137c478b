"""An admission gate that reports how long a unit waits before it."""

from __future__ import annotations

from .._engine.admission import Gate
from .._observing.unit_report import UnitReport

__all__ = ["ReportedGate"]


class ReportedGate:
    """The *gate* of a *pool*, for one unit, whose *report* gets the waits."""

    __slots__ = (
        "_database",
        "_gate",
        "_pool",
        "_report",
        "release",
        "warn_on_event_loop",
    )

    def __init__(
        self, gate: Gate, report: UnitReport, database: str, pool: str
    ) -> None:
        self._gate = gate
        self._report = report
        self._database = database
        self._pool = pool
        self.release = gate.release
        self.warn_on_event_loop = gate.warn_on_event_loop

    async def acquire(self) -> None:
        with self._report.waiting(self._database, self._pool):
            await self._gate.acquire()

    def acquire_in_thread(self) -> bool:
        with self._report.waiting(self._database, self._pool):
            return self._gate.acquire_in_thread()
