"""What belongs to one pool, however many engines and databases share it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import RLock
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Engine
from sqlalchemy.engine import Dialect

from .._concurrency.fork import renew_after_fork
from .._driver.sqlalchemy_internals import root_engine

__all__ = ["PerPool"]

T = TypeVar("T")

_TRIES = 5


class PerPool(Generic[T]):
    """One value for each pool, made by *make* when it is first needed.

    Found by the dialect. `Engine.dispose()` replaces the pool, and
    `Engine.execution_options()` makes another engine of the same pool; both keep the
    dialect. Safe to use from several threads; made to last as long as the process.
    """

    __slots__ = ("_known", "_lock", "_make")

    def __init__(self, make: Callable[[Engine], T]) -> None:
        self._make = make
        """Gets the engine that all others were derived from."""
        self._known: WeakKeyDictionary[Dialect, T] = WeakKeyDictionary()
        # Reentrant: a garbage-collected generator may end its unit inside any call.
        self._lock = renew_after_fork(RLock())

    def of(self, engine: Engine) -> T:
        """The value of *engine*'s pool. Cheap, once it has been made."""
        found = self._known.get(engine.dialect)
        if found is not None:
            return found
        with self._lock:
            found = self._known.get(engine.dialect)
            if found is None:
                found = self._known[engine.dialect] = self._make(root_engine(engine))
            return found

    def __contains__(self, engine: Engine) -> bool:
        return engine.dialect in self._known

    def values(self) -> list[T]:
        """All that are known; none if other threads make pools all the time.

        Without the lock: its owner may wait for what the caller holds.
        """
        for _ in range(_TRIES):
            with suppress(RuntimeError):  # another thread makes one just now
                return list(self._known.values())
        return []
