"""The observers of a database, and which events each of them gets."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

from .event import Event, Observer
from .pool_events import ConnectionCheckedIn, WaitEnded
from .unit_events import ConnectionReturned, StatementExecuted

__all__ = ["Audience", "Registration", "audience_of", "forget_merged"]

log = logging.getLogger("unitwork")

_CHANGES_HANDS = (ConnectionCheckedIn, ConnectionReturned, WaitEnded)
"""When a connection, or a permit, belongs to neither of two: an error would lose it."""


class Registration:
    """One observer of one database, and what it gets; called by any thread."""

    __slots__ = ("_has_failed", "is_active", "kinds", "observer", "shows_sql")

    def __init__(
        self, observer: Observer, kinds: Collection[type[Event]], *, shows_sql: bool
    ) -> None:
        self.observer = observer
        self.kinds = kinds
        self.shows_sql = shows_sql
        self.is_active = True
        """Whether it still gets events: units that are open may know it longer."""
        self._has_failed = False

    def deliver(self, event: Event) -> None:
        """Call the observer. What it raises is logged, the first time.

        An interrupt is raised, unless it would cost a connection.
        """
        if not self.is_active:
            return
        if not self.shows_sql and isinstance(event, StatementExecuted):
            event = event.without_text() if event.statement else event
        try:
            self.observer.on_event(event)
        except BaseException as error:
            is_interrupt = not isinstance(error, Exception | CancelledError)
            if is_interrupt and not isinstance(event, _CHANGES_HANDS):
                raise
            if not self._has_failed:
                self._has_failed = True
                log.exception("the observer %r has failed", self.observer)


class SeveralRegistrations:
    """Those of one observer, which gets each event once all the same."""

    __slots__ = ("_registrations",)

    def __init__(self, *registrations: Registration) -> None:
        """Those that show the text of statements come first."""
        self._registrations = sorted(registrations, key=lambda each: not each.shows_sql)

    def deliver(self, event: Event) -> None:
        """Let the first one deliver *event* that has not ended."""
        for each in self._registrations:
            if each.is_active:
                each.deliver(event)
                return


Recipient: TypeAlias = Registration | SeveralRegistrations


class Audience:
    """Some registrations, by the kinds of event that they get. Never changed."""

    __slots__ = ("by_kind", "registrations", "shows_sql")

    def __init__(self, registrations: Iterable[Registration]) -> None:
        self.registrations = tuple(registrations)
        kinds = dict.fromkeys(kind for each in self for kind in each.kinds)
        self.by_kind: dict[object, tuple[Recipient, ...]] = {
            kind: _recipients(each for each in self if kind in each.kinds)
            for kind in kinds
        }
        self.shows_sql = any(each.shows_sql for each in self.registrations)

    def __iter__(self) -> Iterator[Registration]:
        return iter(self.registrations)


def _recipients(registrations: Iterable[Registration]) -> tuple[Recipient, ...]:
    """One for each observer, though it may have several of the *registrations*."""
    by_observer: dict[int, list[Registration]] = {}
    for each in registrations:
        by_observer.setdefault(id(each.observer), []).append(each)
    return tuple(
        found[0] if len(found) == 1 else SeveralRegistrations(*found)
        for found in by_observer.values()
    )


def audience_of(audiences: Iterable[Audience | None]) -> Audience | None:
    """Merge them: an observer of several databases gets each event once."""
    found = tuple(dict.fromkeys(each for each in audiences if each is not None))
    if len(found) <= 1:
        return found[0] if found else None
    return _merged(found)


def forget_merged() -> None:
    """Forget those that were merged: they refer to observers that may have ended."""
    _merged.cache_clear()


@lru_cache(maxsize=16)
def _merged(audiences: tuple[Audience, ...]) -> Audience:
    return Audience(each for audience in audiences for each in audience)
