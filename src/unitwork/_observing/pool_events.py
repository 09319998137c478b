"""The events of a connection pool, for all its users."""

from __future__ import annotations

from .event import PoolEvent

__all__ = [
    "ConnectionCheckedIn",
    "ConnectionClosed",
    "ConnectionOpened",
    "WaitEnded",
    "WaitStarted",
]


class WaitStarted(PoolEvent):
    """A connection is requested, of the pool or of the admission gate before it."""

    __slots__ = ()


class WaitEnded(PoolEvent):
    """The request is granted, after it has *waited*, or has failed with *error*."""

    __slots__ = ()

    waited: float
    error: BaseException | None


class ConnectionCheckedIn(PoolEvent):
    """A connection is back in the pool after *used* seconds, of a unit or not."""

    __slots__ = ()

    used: float


class ConnectionOpened(PoolEvent):
    """The pool has opened a connection; *duration* is `None` if it is not known."""

    __slots__ = ()

    duration: float | None


class ConnectionClosed(PoolEvent):
    """The pool has closed a connection, or has lost it."""

    __slots__ = ()
