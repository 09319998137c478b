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
        """Receive *event*, one of `KINDS`; called where it happens."""
        unit: UnitInfo | None = event.unit  # type: ignore[attr-defined]  # all have it
        if unit is None:  # another user of the pool
            return
        kind = type(event)
        record = self._records.get(unit.id)
        if record is None:
            # One that has ended before is no longer kept.
            if kind is not events.UnitBegun or self._is_own(unit.path):
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

    def _is_own(self, path: str) -> bool:
        own = self.own_path
        return bool(own) and (path == own or path.startswith(own + "/"))

    def _commit_answered(self, record: UnitRecord, event: Any) -> None:
        if event.error is None:
            self.outcomes.committed(record.name, event.duration)

    def _statement(self, record: UnitRecord, event: Any) -> None:
        text = event.statement
        text = text and shown(text, is_mysql=self.is_mysql(event.database))
        record.add_statement(
            Mark(event.at, "statement", event.duration, event.database, text)
        )

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


def _begun(record: UnitRecord, event: events.UnitBegun) -> None:
    """There is a record of it by now."""


def _settled(record: UnitRecord, event: events.UnitSettled) -> None:
    record.outcome, record.reason = event.outcome, event.reason
    record.sqlstate = event.sqlstate
    record.add(Mark(event.at, "settled", 0.0, "", event.outcome.value))


def _ended(record: UnitRecord, event: events.UnitEnded) -> None:
    record.outcome, record.reason = event.outcome, event.reason
    record.sqlstate, record.use = event.sqlstate, event.use
    record.ended_at = event.at


def _taken(record: UnitRecord, event: events.ConnectionTaken) -> None:
    site = event.call_site
    record.add(Mark(event.at, "taken", 0.0, event.database, "", site))


def _waiting(record: UnitRecord, event: WaitStarted) -> None:
    record.add(Mark(event.at, "waiting", 0.0, event.database))


def _waited(record: UnitRecord, event: WaitEnded) -> None:
    record.add(_answer(event.at, "waited", event.waited, event.database, event.error))


def _transaction(record: UnitRecord, event: events.TransactionBegun) -> None:
    record.add(Mark(event.at, "begun", event.duration, event.database))


def _commit(record: UnitRecord, event: events.CommitSent) -> None:
    record.add(Mark(event.at, "commit", 0.0, event.database))


def _answered(record: UnitRecord, event: events.CommitAnswered) -> None:
    lasted, error = event.duration, event.error
    record.add(_answer(event.at, "committed", lasted, event.database, error))


def _answer(
    at: float, kind: str, lasted: float, database: str, error: BaseException | None
) -> Mark:
    if error is None:
        return Mark(at, kind, lasted, database)
    return Mark(at, kind, lasted, database, type(error).__name__, None, True)


def _verified(record: UnitRecord, event: events.OutcomeVerified) -> None:
    text = {True: "committed", False: "not committed", None: "still unknown"}
    said = text[event.committed]
    record.add(Mark(event.at, "verified", event.duration, event.database, said))


def _returned(record: UnitRecord, event: events.ConnectionReturned) -> None:
    record.add(Mark(event.at, "returned", event.held, event.database))


def _entered(record: UnitRecord, event: events.OutsideEntered) -> None:
    record.add(Mark(event.at, "outside", 0.0, "", event.name))


def _left(record: UnitRecord, event: events.OutsideLeft) -> None:
    record.add(Mark(event.at, "outside-left", 0.0, "", event.name))


def _hook_failed(record: UnitRecord, event: events.HookFailed) -> None:
    record.add(Mark(event.at, "hook-failed", 0.0, "", event.name))


def _started(record: UnitRecord, event: events.ResponseStarted) -> None:
    record.status = event.status
    record.add(Mark(event.at, "response", 0.0, "", str(event.status)))


def _completed(record: UnitRecord, event: events.ResponseCompleted) -> None:
    record.add(Mark(event.at, "completed"))


def _retried(record: UnitRecord, event: events.UnitRetried) -> None:
    record.is_retried = True
    record.add(Mark(event.at, "retried", 0.0, "", type(event.error).__name__))


_STEPS: dict[type[Event], Callable[[UnitRecord, Any], None]] = {
    WaitStarted: _waiting,
    WaitEnded: _waited,
    events.UnitBegun: _begun,
    events.ConnectionTaken: _taken,
    events.TransactionBegun: _transaction,
    events.CommitSent: _commit,
    events.CommitAnswered: _answered,
    events.OutcomeVerified: _verified,
    events.ConnectionReturned: _returned,
    events.OutsideEntered: _entered,
    events.OutsideLeft: _left,
    events.HookFailed: _hook_failed,
    events.ResponseStarted: _started,
    events.ResponseCompleted: _completed,
    events.UnitSettled: _settled,
    events.UnitEnded: _ended,
    events.UnitRetried: _retried,
}

KINDS = (*_STEPS, events.StatementExecuted)
"""The kinds of events that it needs."""
