"""An observer that keeps the open units, and the last of those that have ended."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from .._concurrency.fork import forget_after_fork
from .._observing import unit_events as events
from .._observing.event import Event, PoolEvent, UnitEvent
from .._observing.pool_events import WaitEnded, WaitStarted
from .outcomes import Outcomes
from .record import Mark, UnitRecord
from .statement_text import shown

__all__ = ["KINDS", "Recorder"]


class Recorder:
    """Takes down what happens; bounded: *keep* units that have ended.

    Called by several threads at once. Each step is one operation of a list or a
    dictionary, so nothing is locked.
    """

    def __init__(self, keep: int, is_mysql: Callable[[str], bool]) -> None:
        self.own_path = ""
        """Where the inspector is mounted: its own requests are not recorded."""
        self._keep = keep
        self.is_mysql = is_mysql
        """Of a database by its name: its SQL has strings in double quotes."""
        self._versions = itertools.count(1)
        self.forget_parent()
        forget_after_fork(self)

    def forget_parent(self) -> None:
        self.outcomes = Outcomes()
        self._records: dict[int, UnitRecord] = {}
        self._ended: deque[UnitRecord] = deque()

    def on_event(self, event: Event) -> None:
        """Take notice of *event*; called where it happens."""
        if not isinstance(event, UnitEvent | PoolEvent) or event.unit is None:
            return
        record = self._records.get(event.unit.id)
        if record is None:
            # One that has ended before is no longer kept.
            if not isinstance(event, events.UnitBegun) or self._is_own(event.unit.path):
                return
            record = self._records[event.unit.id] = UnitRecord(event.unit)
        if isinstance(event, events.StatementExecuted):
            self._statement(record, event)
        else:
            _STEPS[type(event)](record, event)
        record.version = next(self._versions)
        if isinstance(event, events.UnitEnded):
            self._unit_ended(record, event)
        elif isinstance(event, events.CommitAnswered) and event.error is None:
            self.outcomes.committed(record.name, event.duration)

    def _is_own(self, path: str) -> bool:
        own = self.own_path
        return bool(own) and (path == own or path.startswith(own + "/"))

    def _statement(self, record: UnitRecord, event: events.StatementExecuted) -> None:
        text = event.statement
        text = text and shown(text, is_mysql=self.is_mysql(event.database))
        record.add_statement(
            Mark(event.at, "statement", event.duration, event.database, text)
        )

    def _unit_ended(self, record: UnitRecord, event: events.UnitEnded) -> None:
        self.outcomes.unit_ended(record.name, event)
        self._ended.append(record)
        while len(self._ended) > self._keep:
            dropped = self._ended.popleft()
            self._records.pop(dropped.info.id, None)

    @property
    def version(self) -> int:
        """That of the last event; reading it takes a number."""
        return next(self._versions)

    def find(self, number: int) -> UnitRecord | None:
        return self._records.get(number)

    def records(self) -> list[UnitRecord]:
        """All of them, the newest first."""
        return sorted(self._records.copy().values(), key=lambda each: -each.info.id)

    def names(self) -> list[str]:
        """What its units are counted by, each once."""
        return sorted({each.name for each in self._records.copy().values()})

    def children_of(self, number: int) -> list[UnitRecord]:
        """The units inside the unit *number*, and those of its background tasks."""
        found = [x for x in self._records.copy().values() if x.info.parent == number]
        return sorted(found, key=lambda each: each.info.id)


def _settled(record: UnitRecord, event: events.UnitSettled) -> None:
    record.outcome, record.reason = event.outcome, event.reason
    record.sqlstate = event.sqlstate
    text = event.outcome.value
    record.add(Mark(event.at, "settled", text=text))


def _ended(record: UnitRecord, event: events.UnitEnded) -> None:
    record.outcome, record.reason = event.outcome, event.reason
    record.sqlstate, record.use = event.sqlstate, event.use
    record.ended_at = event.at


def _taken(record: UnitRecord, event: events.ConnectionTaken) -> None:
    record.add(Mark(event.at, "taken", 0.0, event.database, "", event.call_site))


def _waited(record: UnitRecord, event: WaitEnded) -> None:
    text = "" if event.error is None else type(event.error).__name__
    mark = Mark(event.at, "waited", event.waited, event.database, text)
    record.add(mark._replace(failed=event.error is not None))


def _answered(record: UnitRecord, event: events.CommitAnswered) -> None:
    text = "" if event.error is None else type(event.error).__name__
    mark = Mark(event.at, "committed", event.duration, event.database, text)
    record.add(mark._replace(failed=event.error is not None))


def _verified(record: UnitRecord, event: events.OutcomeVerified) -> None:
    text = {True: "committed", False: "not committed", None: "still unknown"}
    mark = Mark(event.at, "verified", event.duration, event.database)
    record.add(mark._replace(text=text[event.committed]))


def _started(record: UnitRecord, event: events.ResponseStarted) -> None:
    record.status = event.status
    record.add(Mark(event.at, "response", text=str(event.status)))


def _retried(record: UnitRecord, event: events.UnitRetried) -> None:
    record.is_retried = True
    record.add(Mark(event.at, "retried", text=type(event.error).__name__))


def _add(kind: str, *names: str) -> Callable[[UnitRecord, Any], None]:
    """A step that adds a mark with these attributes of the event: seconds, text."""
    seconds, text = (*names, "", "")[:2]

    def add(record: UnitRecord, event: Any) -> None:
        database = getattr(event, "database", "")
        lasted = getattr(event, seconds) if seconds else 0.0
        about = str(getattr(event, text)) if text else ""
        record.add(Mark(event.at, kind, lasted, database, about))

    return add


_STEPS: dict[type[Event], Callable[[UnitRecord, Any], None]] = {
    events.UnitBegun: lambda record, event: None,
    WaitStarted: _add("waiting"),
    WaitEnded: _waited,
    events.ConnectionTaken: _taken,
    events.TransactionBegun: _add("begun", "duration"),
    events.CommitSent: _add("commit"),
    events.CommitAnswered: _answered,
    events.OutcomeVerified: _verified,
    events.ConnectionReturned: _add("returned", "held"),
    events.OutsideEntered: _add("outside", "", "name"),
    events.OutsideLeft: _add("outside-left", "", "name"),
    events.HookFailed: _add("hook-failed", "", "name"),
    events.ResponseStarted: _started,
    events.ResponseCompleted: _add("completed"),
    events.UnitSettled: _settled,
    events.UnitEnded: _ended,
    events.UnitRetried: _retried,
}

KINDS = (*_STEPS, events.StatementExecuted)
"""The kinds of events that it needs."""
