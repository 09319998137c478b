"""Reports the events of one unit of work to the observers of its databases."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from .audience import Audience
from .event import UnitEvent, make_event
from .pool_events import WaitEnded, WaitStarted
from .subjects import UnitInfo
from .unit_events import StatementExecuted

__all__ = ["UnitReport", "next_unit_id"]

log = logging.getLogger("unitwork")

P = ParamSpec("P")
T = TypeVar("T")

_ids = itertools.count(1)


def next_unit_id() -> int:
    """Count the units of this process, as far as they are observed."""
    return next(_ids)


class UnitReport:
    """What reports the events of one *unit*. Keeps no reference to the unit itself."""

    __slots__ = (
        "_by_kind",
        "_find_route",
        "audience",
        "commit_time",
        "error",
        "statement_time",
        "statements",
        "unit",
        "wait_time",
        "waited",
        "waits_for",
    )

    def __init__(
        self, unit: UnitInfo, audience: Audience, find_route: Callable[[], str | None]
    ) -> None:
        self.unit = unit
        self.audience = audience
        self.error: BaseException | None = None
        """What the work of the unit has failed with, if that is known."""
        self.statements = 0
        self.statement_time = self.commit_time = self.wait_time = 0.0
        """Seconds, all in all."""
        self.waited: dict[str, float] = {}
        """How long it has waited for its next connection, by database."""
        self.waits_for: dict[str, str] = {}
        """The pool of which it waits for a connection now, by database."""
        self._by_kind = audience.by_kind
        self._find_route: Callable[[], str | None] | None = find_route

    def wants(self, kind: type[UnitEvent]) -> bool:
        """Whether an observer gets events of that *kind*."""
        return kind in self._by_kind

    def emit(
        self,
        kind: Callable[Concatenate[float, UnitInfo, P], UnitEvent],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Make an event of the *kind* that has these fields, if an observer gets it.

        All its fields but `at` and `unit`, by position: defaults don't apply.
        """
        found = self._by_kind.get(kind)
        if found is None:
            return
        if self._find_route is not None:
            self._look_for_route()
        event = make_event(kind, (time.monotonic(), self.unit, *args))
        for each in found:
            each.deliver(event)

    def _look_for_route(self) -> None:
        """A framework may have found the route since."""
        if self._find_route is not None:
            self.unit.route = self._find_route()
            if self.unit.route is not None:
                self._find_route = None

    def made_by(
        self,
        option: str,
        function: Callable[[UnitInfo], T] | None,
        finish: Callable[[T], str],
    ) -> str:
        """The SQL that *finish* makes of what the *function* of an option returns.

        Empty if there is no function, and if it fails.
        """
        if function is None:
            return ""
        self._look_for_route()
        try:
            return finish(function(self.unit))
        except Exception:  # it must not cost the unit its connection
            log.exception("%s has failed", option)
            return ""

    def statement_executed(self, database: str, duration: float, text: str) -> None:
        self.statements += 1
        self.statement_time += duration
        if StatementExecuted in self._by_kind:
            text = text if self.audience.shows_sql else ""
            self.emit(StatementExecuted, database, duration, text)

    def waiting(self, database: str, pool: str) -> Waiting:
        """Report that the unit waits for a connection of *pool* in the block."""
        return Waiting(self, database, pool)

    def wait_started(self, database: str, pool: str, now: float) -> None:
        self.waits_for[database] = pool
        for each in self._by_kind.get(WaitStarted, ()):
            each.deliver(make_event(WaitStarted, (now, self.unit, database, pool)))

    def wait_ended(
        self, database: str, pool: str, began: float, error: BaseException | None
    ) -> None:
        self.waits_for.pop(database, None)
        now = time.monotonic()
        waited = now - began
        self.waited[database] = self.waited.get(database, 0.0) + waited
        self.wait_time += waited
        for each in self._by_kind.get(WaitEnded, ()):
            fields = now, self.unit, database, pool, waited, error
            each.deliver(make_event(WaitEnded, fields))

    def take_waited(self, database: str) -> float:
        """How long it has waited for the connection that it has now."""
        return self.waited.pop(database, 0.0)

    def ended(self) -> None:
        """Forget what leads back to the unit."""
        self._find_route, self.error = None, None


class Waiting:
    """A block in which a unit waits for a connection: see `UnitReport.waiting()`."""

    __slots__ = ("_began", "_database", "_pool", "_report")

    def __init__(self, report: UnitReport, database: str, pool: str) -> None:
        self._report = report
        self._database = database
        self._pool = pool

    def __enter__(self) -> None:
        self._began = time.monotonic()
        self._report.wait_started(self._database, self._pool, self._began)

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: object
    ) -> None:
        self._report.wait_ended(self._database, self._pool, self._began, error)
