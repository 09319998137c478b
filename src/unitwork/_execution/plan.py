"""A plan: an order of calls, written once for sync and async, as a generator of steps.

It knows neither threads nor awaits. `sync_runner` makes each step where it stands,
`async_runner` in the session's greenlet or in a worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from .._session.unit_session import UnitSession

__all__ = ["Call", "Pause", "Plan", "Step", "Wait"]

T = TypeVar("T")


class Step(NamedTuple):
    """One call with the SQLAlchemy session of *session*; of a hook, if that is `None`.

    *limit*, in seconds, bounds the call: its connection is broken off then.
    """

    call: Callable[..., Any]
    session: UnitSession | None = None
    limit: float | None = None


class Call(NamedTuple):
    """One call without a session that waits for a database: an engine says where."""

    call: Callable[[], Any]
    is_async: bool


class Pause(NamedTuple):
    """Some time in which nothing is done."""

    seconds: float


class Wait(NamedTuple):
    """Wait till *future* has its result; says `False` after *limit* seconds without."""

    future: Future[None]
    limit: float | None = None


Plan = Generator[Step | Call | Pause | Wait, Any, T]
