"""The two drivers of a plan: how its steps are made, one after the other.

A plan is a generator that yields steps. It knows neither threads nor awaits: `run`
makes each step where it stands, `arun` in the session's greenlet or in a thread.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.util import greenlet_spawn

from ._concurrency.cancellation import TaskCancellation
from ._concurrency.watchdog import Watchdog
from ._concurrency.worker_threads import run_in_worker_thread
from ._session import Lease
from .errors import UsageError

__all__ = ["Pause", "Plan", "Step", "arun", "run"]

T = TypeVar("T")

_PAUSE = 0.005  # seconds between two looks at a session that is in use


class Step(NamedTuple):
    """One call: with the session of *lease*, or a hook if that is `None`.

    *limit*, in seconds, bounds the call: its connection is broken off then.
    """

    call: Callable[..., Any]
    lease: Lease | None = None
    limit: float | None = None


class Pause(NamedTuple):
    """Some time in which nothing is done."""

    seconds: float


Plan = Generator[Step | Pause, Any, T]


def run(plan: Plan[T]) -> T:
    """Make each step at once, in this thread."""
    result: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = plan.throw(error) if error is not None else plan.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # T, by the plan's type
        result = error = None
        try:
            result = _make(step)
        except BaseException as caught:
            error = caught


async def arun(plan: Plan[T]) -> T:
    """Make each step where it belongs, and await it."""
    result: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = plan.throw(error) if error is not None else plan.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # T, by the plan's type
        result = error = None
        try:
            result = await _amake(step)
        except BaseException as caught:
            error = caught


def _make(step: Step | Pause) -> Any:
    if isinstance(step, Pause):
        return time.sleep(step.seconds)
    if step.lease is None:
        return step.call()
    patience = _Patience(step.lease)
    while True:
        if not step.lease.busy:
            with suppress(IllegalStateChangeError):
                if step.limit is None:
                    return step.call(step.lease.sync_session)
                with _BrokenOff(step.limit, step.lease):
                    return step.call(step.lease.sync_session)
        patience.check()
        time.sleep(_PAUSE)


async def _amake(step: Step | Pause) -> Any:
    if isinstance(step, Pause):
        return await asyncio.sleep(step.seconds)
    if step.lease is None:
        return await _call_hook(step.call)
    patience: _Patience | None = None
    while True:
        if not step.lease.busy:
            try:
                if step.limit is None:
                    return await _in_place(step.call, step.lease)
                with _Within(step.limit, step.lease):
                    return await _in_place(step.call, step.lease)
            except IllegalStateChangeError:
                pass  # another task uses the session just now
        patience = patience or _Patience(step.lease)
        patience.check()
        await asyncio.sleep(_PAUSE)


class _BrokenOff(Watchdog):
    """Breaks the connection off when the time is over."""

    __slots__ = ("_lease",)

    def __init__(self, limit: float, lease: Lease) -> None:
        self.seconds = limit
        self._lease = lease

    def expired(self) -> None:
        self._lease.discard()


class _Within(Watchdog):
    """Breaks the connection off, too, by its event loop; if in vain, cancels.

    That is the last resort: a driver may take its time to ask the server to stop, and a
    thread would not notice.
    """

    __slots__ = ("_cancellation", "_lease", "_loop", "_over", "_timer")

    def __init__(self, limit: float, lease: Lease) -> None:
        self.seconds = limit
        self._lease = lease
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        task = asyncio.current_task()
        assert task is not None
        self._cancellation = TaskCancellation(task)
        self._loop = asyncio.get_running_loop()

    def expired(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._break_off)

    def _break_off(self) -> None:
        if not self._over:
            self._lease.discard()
            self._timer = self._loop.call_later(self.seconds, self._cancellation.cancel)

    def __exit__(self, *exc_info: object) -> None:
        Watchdog.__exit__(self)
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._cancellation.release() and isinstance(
            exc_info[1], asyncio.CancelledError
        ):
            raise TimeoutError


class _Patience:
    """With other tasks or threads that still use a session which is to end."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._until = time.monotonic() + lease.patience

    def check(self) -> None:
        """Once it has run out, break off what they are doing, and raise."""
        if time.monotonic() > self._until:
            self._lease.discard()
            raise UsageError(
                "another task or thread still used the session "
                f"{self._lease.patience:g} seconds after its unit of work had come to "
                "an end; await what you start, or give it a unit of its own: "
                "`async with db.transaction() as session:`"
            )


def _in_place(call: Callable[..., Any], lease: Lease) -> Awaitable[Any]:
    """Call where the driver of the session wants to be called.

    In a greenlet, as `AsyncSession.run_sync()` does, or in a thread of our own: the
    framework's threads may all wait for this connection.
    """
    if lease.is_async:
        return greenlet_spawn(call, lease.sync_session)
    return run_in_worker_thread(call, lease.sync_session)


async def _call_hook(call: Callable[[], Any]) -> None:
    if inspect.iscoroutinefunction(call):
        await call()
        return
    # A limiter of its own: the framework's threads may all wait for this unit's locks.
    result = await to_thread.run_sync(call, limiter=CapacityLimiter(1))
    if inspect.isawaitable(result):
        await result
