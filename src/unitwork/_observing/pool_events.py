"""The events of a connection pool, for all its users."""

from __future__ import annotations

from dataclasses import dataclass

from .event import PoolEvent

__all__ = [
    "ConnectionCheckedIn",
    "ConnectionClosed",
    "ConnectionOpened",
    "WaitEnded",
    "WaitStarted",
]


@dataclass(frozen=True, slots=True)
class WaitStarted(PoolEvent):
    """A connection is requested, of the pool or of the admission gate before it."""


@dataclass(frozen=True, slots=True)
class WaitEnded(PoolEvent):
    """The request is granted, after it has *waited*, or has failed with *error*."""

    waited: float
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class ConnectionCheckedIn(PoolEvent):
    """A connection is back in the pool after *used* seconds, of a unit or not."""

    used: float


@dataclass(frozen=True, slots=True)
class ConnectionOpened(PoolEvent):
    """The pool has opened a connection; *duration* is `None` if it is not known."""

    duration: float | None


@dataclass(frozen=True, slots=True)
class ConnectionClosed(PoolEvent):
    """The pool has closed a connection, or has lost it."""
