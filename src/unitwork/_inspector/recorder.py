"""An observer that keeps the open units, and the last of those that have ended."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from .._concurrency.fork import forget_after_fork
from .._observing import unit_events as events
from .._observing.event import Event
from .._observing.pool_events import WaitEnded, WaitStarted
from .._observing.subjects import UnitInfo
from .marks import mark_of
from .outcomes import Outcomes
from .record import UnitRecord
from .statement_text import shown

__all__ = ["KINDS", "Recorder"]

_MOST_PATHS = 16


class Recorder:
    """Takes down what happens; bounded: *keep* units that have ended.

    Called by several threads at once. Each step is one operation of a list or a
    dictionary, so nothing is locked.
    """

    def __init__(self, keep: int, dialect_of: Callable[[str], str]) -> None:
        self._own_paths: frozenset[str] = frozenset()
        """Where the inspector is mounted. Replaced, never changed."""
        self._keep = keep
        self.dialect_of = dialect_of
        """The name of the dialect of a database, by that of the database."""
        self._versions = itertools.count(1)
        self.forget_parent()
        forget_after_fork(self)

    def forget_parent(self) -> None:
        self.outcomes = Outcomes()
        self._records: dict[int, UnitRecord] = {}
        self._ended: deque[UnitRecord] = deque()

    def on_event(self, event: Event) -> None:
        """Receive *event*, one of `KINDS`; called where it happens."""
        unit: UnitInfo | None = event.unit  # type: ignore[attr-defined]  # all have it
        if unit is None:  # another user of the pool
            return
        kind = type(event)
        record = self._records.get(unit.id)
        if record is None:
            # One that has ended before is no longer kept.
            if kind is not events.UnitBegun or self.is_own(unit.path):
                return
            self._records[unit.id] = record = UnitRecord(unit)
        if kind is events.StatementExecuted:
            self._statement(record, event)
        else:
            _STEPS[kind](record, event)
        record.version = next(self._versions)
        if kind is events.UnitEnded:
            self._unit_ended(record, event)
        elif kind is events.CommitAnswered:
            self._commit_answered(record, event)

    def mounted_at(self, path: str) -> None:
        """Record that the inspector serves what is below *path*."""
        known = self._own_paths
        if path and path not in known:  # a path with parameters may have any values
            self._own_paths = (known if len(known) < _MOST_PATHS else frozenset()) | {
                path
            }

    def is_own(self, path: str) -> bool:
        """Whether a request of *path* is the inspector's, which is not recorded."""
        return any(path == own or path.startswith(own + "/") for own in self._own_paths)

    def _commit_answered(self, record: UnitRecord, event: Any) -> None:
        if event.error is None:
            self.outcomes.committed(record.name, event.duration)

    def _statement(self, record: UnitRecord, event: Any) -> None:
        if event.statement:
            text = shown(event.statement, self.dialect_of(event.database))
            event = mark_of(event)._replace(text=text)
        record.add_statement(event)

    def _unit_ended(self, record: UnitRecord, event: Any) -> None:
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
    record.add(mark_of(event))


def _ended(record: UnitRecord, event: events.UnitEnded) -> None:
    record.outcome, record.reason = event.outcome, event.reason
    record.sqlstate, record.use = event.sqlstate, event.use
    record.ended_at = event.at


def _started(record: UnitRecord, event: events.ResponseStarted) -> None:
    record.status = event.status
    record.add(event)


def _retried(record: UnitRecord, event: events.UnitRetried) -> None:
    record.is_retried = True
    record.add(mark_of(event))


def _without_error(record: UnitRecord, event: Any) -> None:
    """An error leads to frames, and to what is in them: only its name is kept."""
    record.add(event if event.error is None else mark_of(event))


_STEPS: dict[type[Event], Callable[[UnitRecord, Any], None]] = {
    WaitStarted: UnitRecord.add,
    WaitEnded: _without_error,
    events.UnitBegun: lambda record, event: None,  # there is a record of it by now
    events.ConnectionTaken: UnitRecord.add,
    events.TransactionBegun: UnitRecord.add,
    events.CommitSent: UnitRecord.add,
    events.CommitAnswered: _without_error,
    events.OutcomeVerified: UnitRecord.add,
    events.ConnectionReturned: UnitRecord.add,
    events.OutsideEntered: UnitRecord.add,
    events.OutsideLeft: UnitRecord.add,
    events.HookFailed: _without_error,
    events.ResponseStarted: _started,
    events.ResponseCompleted: UnitRecord.add,
    events.UnitSettled: _settled,
    events.UnitEnded: _ended,
    events.UnitRetried: _retried,
}

KINDS: tuple[type[Event], ...] = (*_STEPS, events.StatementExecuted)
"""The kinds of events that it needs."""
