"""A plan: an order of calls, written once for sync and async, as a generator of steps.

It knows neither threads nor awaits. `sync_runner` makes each step in the calling
thread, `async_runner` in the session's greenlet or in a worker thread.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from .._session.unit_session import UnitSession

__all__ = [
    "Call",
    "HookCall",
    "HookTimeoutError",
    "Interrupted",
    "Pause",
    "Plan",
    "Step",
    "Wait",
]

T = TypeVar("T")


class Step(NamedTuple):
    """One call with the SQLAlchemy session of *session*.

    *limit*, in seconds, bounds the call: its connection is aborted then. It *waits*
    until no other task or thread is at work in the session.
    """

    call: Callable[..., Any]
    session: UnitSession
    limit: float | None = None
    waits: bool = True


class HookCall(NamedTuple):
    """One call of a hook. Raises `HookTimeoutError` after *limit* seconds.

    A task or thread can't be stopped by force: one that ignores its cancellation runs
    on. In the caller's own thread *sessions* lose their connections instead.
    """

    call: Callable[[], Any]
    limit: float | None = None
    sessions: Sequence[UnitSession] = ()


class HookTimeoutError(TimeoutError):
    """A hook has used up its time; a `TimeoutError` of its own is none."""


class Interrupted(CancelledError):
    """The ending itself was cancelled while a hook was running.

    *hook_ended*: by itself, in that very turn of the event loop. What it has raised is
    the `__cause__`.
    """

    def __init__(self, *, hook_ended: bool = False) -> None:
        super().__init__()
        self.hook_ended = hook_ended


class Call(NamedTuple):
    """One call without a session: in a greenlet if *is_async*, else in a thread."""

    call: Callable[[], Any]
    is_async: bool


class Pause(NamedTuple):
    """A pause of some seconds."""

    seconds: float


class Wait(NamedTuple):
    """Wait until *future* has its result; gives `False` after *limit* seconds."""

    future: Future[None]
    limit: float | None = None


Plan = Generator[Step | HookCall | Call | Pause | Wait, Any, T]
