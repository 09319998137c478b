"""Runs a plan in a task: each step in the session's greenlet, or in a worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.util import greenlet_spawn

from .._concurrency.cancellation import TaskCancellation
from .._concurrency.watchdog import Watchdog
from .._concurrency.worker_threads import run_in_worker_thread
from .._session.unit_session import UnitSession
from .hook_task import call_hook
from .patience import POLL_INTERVAL, Patience
from .plan import Call, HookCall, Pause, Plan, Step, Wait

__all__ = ["arun"]

T = TypeVar("T")


async def arun(plan: Plan[T]) -> T:
    """Make each step of *plan* in its greenlet or thread, and await it."""
    result: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = plan.throw(error) if error is not None else plan.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # T, by the plan's type
        result = error = None
        try:
            if isinstance(step, Step):
                result = await _make(step)
            else:
                result = await _make_other(step)
        except BaseException as caught:
            error = caught


async def _make(step: Step) -> Any:
    """Make *step* in the context that the driver of its session needs.

    In a greenlet, as `AsyncSession.run_sync()` does, or in a thread of our own: the
    framework's threads may all be waiting for this connection.
    """
    session = step.session
    make_step = session.activity.make_step
    in_place: Callable[..., Awaitable[Any]]
    in_place = greenlet_spawn if session.is_async else run_in_worker_thread
    patience: Patience | None = None
    while True:
        if not (step.waits and session.in_statement):
            try:
                if step.limit is None:
                    return await in_place(make_step, step.call, session.sync_session)
                with _AbortAfter(step.limit, session):
                    return await in_place(make_step, step.call, session.sync_session)
            except IllegalStateChangeError:
                pass  # another task uses it just now
        patience = patience or Patience(session)
        patience.check()
        await asyncio.sleep(POLL_INTERVAL)


async def _make_other(step: HookCall | Call | Pause | Wait) -> Any:
    match step:
        case HookCall(call, limit):
            return await call_hook(call, limit)
        case Pause(seconds):
            return await asyncio.sleep(seconds)
        case Wait(future, limit):
            done, _ = await asyncio.wait((asyncio.wrap_future(future),), timeout=limit)
            return bool(done)
        case Call(call, is_async):
            if is_async:
                return await greenlet_spawn(call)
            return await to_thread.run_sync(
                call, limiter=CapacityLimiter(1), abandon_on_cancel=True
            )


class _AbortAfter(Watchdog):
    """Aborts connections in the event loop; if that does not help, cancels the task.

    That is the last resort: a driver may take long to cancel a statement on the server,
    and a thread would not notice.
    """

    __slots__ = (
        "_before",
        "_cancellation",
        "_loop",
        "_over",
        "_session",
        "_task",
        "_timer",
    )

    def __init__(self, limit: float, session: UnitSession) -> None:
        self.seconds = limit
        self._session = session
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._cancellation: TaskCancellation | None = None
        """Made when the time is over, as it nearly never is."""
        task = asyncio.current_task()
        assert task is not None
        self._task, self._before = task, task.cancelling()
        self._loop = asyncio.get_running_loop()

    def expired(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        if not self._over:
            self._session.abort_connections()
            self._cancellation = TaskCancellation(self._task, self._before)
            self._timer = self._loop.call_later(self.seconds, self._cancellation.cancel)

    def __exit__(self, *exc_info: object) -> None:
        Watchdog.__exit__(self)
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        ours = self._cancellation is not None and self._cancellation.release()
        if ours and isinstance(exc_info[1], asyncio.CancelledError):
            raise TimeoutError
