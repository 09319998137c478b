"""The observers of telemetry: one for each provider, whatever it records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from threading import Lock
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from .._concurrency.fork import renew_after_fork
from .._observing.event import Event
from .._session.database_core import DatabaseCore

__all__ = ["Recordings", "Telemetry"]


class Telemetry:
    """An observer of some databases, which may change."""

    databases: tuple[DatabaseCore, ...] = ()
    records: bool
    """Whether anything is recorded: not without an SDK."""
    recorders: Mapping[type[Event], Callable[..., None]]
    """What it does with each kind of event."""

    @property
    def kinds(self) -> Collection[type[Event]]:
        """The kinds of event that it needs."""
        return self.recorders.keys() if self.records else ()

    def on_event(self, event: Event) -> None:
        self.recorders[type(event)](event)

    def add(self, database: DatabaseCore) -> None:
        self.databases = (*self.databases, database)

    def remove(self, database: DatabaseCore) -> None:
        """Forget what is open in *database*: nothing more is reported of it."""
        self.databases = tuple(x for x in self.databases if x is not database)


P = TypeVar("P")
T = TypeVar("T", bound=Telemetry)


class Recordings(Generic[P, T]):
    """The observers that *make* has made, each for one provider.

    All databases of a provider have the same one. A unit of several is counted once,
    and OpenTelemetry registers the callbacks of a name once for each provider.
    *current* returns the global provider, which stands for another one once it is set.
    """

    def __init__(self, make: Callable[[P], T], current: Callable[[], P]) -> None:
        self._make = make
        self._current = current
        self._made: WeakKeyDictionary[P, T] = WeakKeyDictionary()
        self._of_global: T | None = None
        self._uses: Counter[tuple[T, DatabaseCore]] = Counter()
        self._stops: dict[tuple[T, DatabaseCore], Callable[[], None]] = {}
        self._lock = renew_after_fork(Lock())

    def of(self, given: P | None) -> T:
        """The observer for the provider that is *given*, or for the global one."""
        current = self._current()
        provider = current if given is None else given
        with self._lock:
            found = self._made.get(provider)
            if found is None and provider is current:
                found = self._of_global
            if found is None:
                found = self._make(provider)
            self._made[provider] = found
            if provider is current:
                self._of_global = found
        return found

    def start(self, observer: T, database: DatabaseCore) -> Callable[[], None]:
        """Let *observer* record *database*; return what ends that, once."""
        use = observer, database
        with self._lock:
            self._uses[use] += 1
            if self._uses[use] == 1 and observer.kinds:
                observer.add(database)
                self._stops[use] = database.observers.add(observer, observer.kinds)
        is_on = [True]

        def stop() -> None:
            with self._lock:
                if not is_on:
                    return
                is_on.clear()
                self._uses[use] -= 1
                if not self._uses[use]:
                    del self._uses[use]
                    if (end := self._stops.pop(use, None)) is not None:
                        end()
                        observer.remove(database)

        return stop
