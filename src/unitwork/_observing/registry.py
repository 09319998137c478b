"""The observers of each database; and those of all of them, as in a test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from threading import Lock

from .._concurrency.fork import renew_after_fork
from . import pool_events, unit_events
from .audience import Audience, Registration, forget_merged
from .event import Event, Observer

__all__ = ["Observers", "everywhere", "observing"]

EVENTS: tuple[type[Event], ...] = tuple(
    kind
    for module in (pool_events, unit_events)
    for name in module.__all__
    if isinstance(kind := getattr(module, name), type)
)

_changing = renew_after_fork(Lock())


class _Observing:
    """Whether any database has an observer: each unit checks that first."""

    __slots__ = ("is_on", "registrations")

    def __init__(self) -> None:
        self.is_on = False
        self.registrations = 0


observing = _Observing()


class Observers:
    """The observers of one database. May be changed at any time, by any thread."""

    __slots__ = ("_is_required", "_on_first", "audience")

    def __init__(self, on_first: Callable[[], object] = lambda: None) -> None:
        self.audience: Audience | None = None
        """Replaced, never changed: other threads are reading it."""
        self._on_first = on_first
        """Called when there is one where there was none."""
        self._is_required = False

    def add(
        self,
        observer: Observer,
        only: Collection[type[Event]] | None = None,
        *,
        shows_sql: bool = False,
    ) -> Callable[[], None]:
        """Add *observer*; return what removes it."""
        added = Registration(observer, _kinds_of(only), shows_sql=shows_sql)
        with _changing:
            is_first = not list(self)
            self.audience = Audience([*self, added])
            _count(1)
        if is_first:
            self._on_first()
        return lambda: self._remove(added)

    def require_reports(self) -> None:
        """Let each unit have a report from now on, though no observer may get it."""
        with _changing:
            if not self._is_required:
                self._is_required = True
                self.audience = self.audience or Audience([])
                _count(1)

    def _remove(self, registration: Registration) -> None:
        with _changing:
            if not registration.is_active:
                return
            registration.is_active = False
            rest = [each for each in self if each is not registration]
            is_needed = rest or self._is_required
            self.audience = Audience(rest) if is_needed else None
            forget_merged()
            _count(-1)

    def __iter__(self) -> Iterator[Registration]:
        return iter(self.audience or ())


def _kinds_of(only: Collection[type[Event]] | None) -> Collection[type[Event]]:
    """All kinds of events, or those of *only*: one stands for all that derive of it."""
    if only is None:
        return EVENTS
    wanted = tuple(only)
    return tuple(kind for kind in EVENTS if issubclass(kind, wanted))


def _count(change: int) -> None:
    observing.registrations += change
    observing.is_on = observing.registrations > 0


everywhere = Observers()
"""Those of all databases."""
