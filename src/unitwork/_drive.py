"""The two drivers of a plan: how its steps are made, one after the other.

A plan is a generator that yields steps. It knows neither threads nor awaits: `run`
makes each step where it stands, `arun` in the session's greenlet or in a thread.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import Context
from typing import Any, NamedTuple, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.util import greenlet_spawn

from ._alarm import alarm
from ._session import Lease
from .errors import UsageError

__all__ = ["Pause", "Plan", "Step", "arun", "run", "uninterrupted"]

log = logging.getLogger("unitwork")

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
                with alarm(step.limit, step.lease.discard):
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


class _Within:
    """Breaks the connection off when the time is over.

    To cancel a driver is the last resort: it may take its time to ask the server to
    stop, and a thread would not notice. Mostly it is over before, so this has to cost
    less than `asyncio.timeout()` does.
    """

    __slots__ = ("_before", "_expired", "_lease", "_limit", "_loop", "_task", "_timer")

    def __init__(self, limit: float, lease: Lease) -> None:
        self._limit = limit
        self._lease = lease
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._limit, self._break_off)

    def _break_off(self) -> None:
        self._lease.discard()
        self._timer = self._loop.call_later(self._limit, self._cancel)

    def _cancel(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._timer.cancel()
        ours = self._expired and self._task.uncancel() <= self._before
        if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
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

    In a greenlet, as `AsyncSession.run_sync()` does, or in a thread with a limiter of
    its own: the framework's threads may all wait for this connection.
    """
    if lease.is_async:
        return greenlet_spawn(call, lease.sync_session)
    limiter = CapacityLimiter(1)
    return to_thread.run_sync(call, lease.sync_session, limiter=limiter)


async def _call_hook(call: Callable[[], Any]) -> None:
    if inspect.iscoroutinefunction(call):
        await call()
        return
    # A limiter of its own: the framework's threads may all wait for this unit's locks.
    result = await to_thread.run_sync(call, limiter=CapacityLimiter(1))
    if inspect.isawaitable(result):
        await result


async def uninterrupted(
    work: Coroutine[Any, Any, T],
    interruptible: Callable[[], bool] = lambda: False,
    context: Context | None = None,
) -> T:
    """Run *work* to its end in a task of its own, whatever becomes of this task.

    In *context*, or in a copy of the one around. A cancellation, native or by an anyio
    scope, is delivered afterwards; also to the *work*, once, if it is *interruptible*
    when the cancellation comes.
    """
    task = asyncio.create_task(work, context=context)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError as cancelled:
        if not task.done() and interruptible():
            task.cancel()
        await _see_through(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a unit failed to end while it was cancelled", exc_info=error)
        raise cancelled


async def _see_through(task: asyncio.Task[Any]) -> None:
    """Wait for *task*, though this one is cancelled, and maybe more than once."""
    with CancelScope(shield=True):  # or the loop would spin in a cancelled anyio scope
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
