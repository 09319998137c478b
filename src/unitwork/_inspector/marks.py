"""The marks that the inspector shows, made of events when it is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .._observing import unit_events as events
from .._observing.event import Event
from .._observing.pool_events import WaitEnded, WaitStarted
from .._observing.subjects import CallSite

__all__ = ["TimelineMark", "mark_of"]


_VERIFIED = {True: "committed", False: "not committed", None: "still unknown"}


class TimelineMark(NamedTuple):
    """Something that has happened *at* a time, after *seconds* of its own."""

    at: float
    kind: str
    seconds: float = 0.0
    database: str = ""
    text: str = ""
    call_site: CallSite | None = None
    failed: bool = False
    pool: str = ""
    """Where a connection is waited for, or was taken from."""

    @property
    def source(self) -> str:
        """The name of what a connection comes from."""
        return self.pool or self.database


def mark_of(entry: TimelineMark | Event) -> TimelineMark:
    """The mark of an event; it keeps no error, and so nothing that led to one."""
    return entry if isinstance(entry, TimelineMark) else _MARKS[type(entry)](entry)


def _waited(event: WaitEnded) -> TimelineMark:
    return _answer(event, "waited", event.waited)._replace(pool=event.pool)


def _answered(event: events.CommitAnswered) -> TimelineMark:
    return _answer(event, "committed", event.duration)


def _answer(
    event: WaitEnded | events.CommitAnswered, kind: str, took: float
) -> TimelineMark:
    text = "" if event.error is None else type(event.error).__name__
    failed = event.error is not None
    return TimelineMark(event.at, kind, took, event.database, text, failed=failed)


def _verified(event: events.OutcomeVerified) -> TimelineMark:
    found = _VERIFIED[event.committed]
    return TimelineMark(event.at, "verified", event.duration, event.database, found)


def _named(kind: str) -> Callable[[Any], TimelineMark]:
    return lambda event: TimelineMark(event.at, kind, text=event.name)


def _of_database(kind: str, seconds: str = "") -> Callable[[Any], TimelineMark]:
    """Marks of *kind*, which have lasted for the attribute *seconds*."""

    def mark(event: Any) -> TimelineMark:
        lasted = getattr(event, seconds) if seconds else 0.0
        return TimelineMark(event.at, kind, lasted, event.database)

    return mark


_MARKS: dict[type[Event], Callable[[Any], TimelineMark]] = {
    WaitStarted: lambda event: TimelineMark(
        event.at, "waiting", database=event.database, pool=event.pool
    ),
    WaitEnded: _waited,
    events.ConnectionTaken: lambda event: TimelineMark(
        event.at,
        "taken",
        database=event.database,
        call_site=event.call_site,
        pool=event.pool,
    ),
    events.TransactionBegun: _of_database("begun", "duration"),
    events.StatementExecuted: _of_database("statement", "duration"),
    events.CommitSent: _of_database("commit"),
    events.CommitAnswered: _answered,
    events.OutcomeVerified: _verified,
    events.ConnectionReturned: _of_database("returned", "held"),
    events.OutsideEntered: _named("outside"),
    events.OutsideLeft: _named("outside-left"),
    events.HookFailed: _named("hook-failed"),
    events.ResponseStarted: lambda event: TimelineMark(
        event.at, "response", text=str(event.status)
    ),
    events.ResponseCompleted: lambda event: TimelineMark(event.at, "completed"),
    events.UnitSettled: lambda event: TimelineMark(
        event.at, "settled", text=event.outcome.value
    ),
    events.UnitRetried: lambda event: TimelineMark(
        event.at, "retried", text=type(event.error).__name__
    ),
}
