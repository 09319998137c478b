"""What all events have in common, and who gets them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .subjects import UnitInfo

__all__ = ["Event", "Observer", "PoolEvent", "UnitEvent"]


class Observer(Protocol):
    """Gets the events of a database: see `Database.observe()`.

    .. versionadded:: 0.2
    """

    def on_event(self, event: Event, /) -> None:
        """Receive *event*.

        Called where it happens, at once: on the event loop, in a greenlet, in a worker
        thread or in that of the watchdog, by several of them at the same time. So it
        must not block, and must not use a database. An exception that it raises is
        logged, the first time, and changes nothing.
        """
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened *at* a time, by `time.monotonic()`.

    .. versionadded:: 0.2
    """

    at: float


@dataclass(frozen=True, slots=True)
class UnitEvent(Event):
    """An event of one *unit* of work."""

    unit: UnitInfo


@dataclass(frozen=True, slots=True)
class PoolEvent(Event):
    """An event of the pool of a *database*; *unit* is `None` for other users of it."""

    unit: UnitInfo | None
    database: str
