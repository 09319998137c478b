"""The observers of a database, and which events each of them gets."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from .event import Event, Observer
from .unit_events import StatementExecuted

__all__ = ["Audience", "Registration", "audience_of"]

log = logging.getLogger("unitwork")


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
        """Call the observer. What it raises is logged, the first time."""
        if not self.is_active:
            return
        if not self.shows_sql and isinstance(event, StatementExecuted):
            event = replace(event, statement="") if event.statement else event
        try:
            self.observer.on_event(event)
        except (Exception, CancelledError):
            if not self._has_failed:
                self._has_failed = True
                log.exception("the observer %r has failed", self.observer)


class Audience:
    """Some registrations, by the kinds of event that they get. Never changed."""

    __slots__ = ("by_kind", "registrations", "shows_sql")

    def __init__(self, registrations: Iterable[Registration]) -> None:
        self.registrations = tuple(registrations)
        self.by_kind: dict[object, tuple[Registration, ...]] = {}
        for each in self.registrations:
            for kind in each.kinds:
                self.by_kind[kind] = (*self.by_kind.get(kind, ()), each)
        self.shows_sql = any(each.shows_sql for each in self.registrations)

    def __iter__(self) -> Iterator[Registration]:
        return iter(self.registrations)


def audience_of(audiences: Iterable[Audience | None]) -> Audience | None:
    """Merge them: an observer of several databases is in the result once."""
    found = list(dict.fromkeys(each for each in audiences if each is not None))
    if len(found) <= 1:
        return found[0] if found else None
    merged: dict[int, Registration] = {}
    for audience in found:
        for each in audience:
            merged.setdefault(id(each.observer), each)
    return Audience(merged.values())
