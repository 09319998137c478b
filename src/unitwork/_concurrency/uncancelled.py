"""Awaits work to its end in the task that needs it, though that task is cancelled."""

from __future__ import annotations

import asyncio
import time
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import Context
from typing import Any

from anyio import CancelScope

from .watchdog import Watchdog, scheduler

__all__ = ["Uncancelled"]


class Uncancelled(Watchdog):
    """Awaits *work* to its end in the current task, within a time limit.

    As `shield.uninterrupted()` does in a task of its own, which costs a second round of
    the event loop. This stands between the task and the future that *work* awaits. If
    *patience* returns 0 when a cancellation arrives, that future is cancelled, as if
    nothing stood there. Otherwise it is not, and what was raised in the task is in
    `cancelled` afterwards: the caller raises it.

    Only for *work* that awaits futures and does not cancel its own task: what
    `asyncio.timeout()` does would be taken for a cancellation from outside.

    After *seconds*, *abort* is called in the thread of the event loop; if that does not
    help, what *work* awaits is cancelled as many seconds later, and `TimeoutError` is
    raised.
    """

    __slots__ = (
        "_abort",
        "_asyncio_future_blocking",
        "_callback",
        "_context",
        "_future",
        "_is_broken_off",
        "_is_over",
        "_loop",
        "_patience",
        "_timer",
        "_work",
        "cancelled",
        "get_loop",
    )

    def __init__(
        self,
        work: Coroutine[Any, Any, Any],
        seconds: float,
        abort: Callable[[], object],
        patience: Callable[[], float | None],
    ) -> None:
        self.seconds = seconds
        self._patience = patience
        self._work = work
        self._abort = abort
        self._is_broken_off = self._is_over = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._future: asyncio.Future[Any]
        self.cancelled: CancelledError | None = None
        """What has been raised in the task meanwhile."""

    def __await__(self) -> Generator[Any, None, Any]:
        work = self._work
        self.at = time.monotonic() + self.seconds
        try:
            scheduler.add(self)
            while True:
                self._future = future = work.send(None)
                if future is None:  # `asyncio.sleep(0)`
                    yield from self._pass_on()
                    continue
                self.get_loop = future.get_loop
                # Between `await` and the task: see "Future-like" in `asyncio.Task`.
                future._asyncio_future_blocking = False
                self._asyncio_future_blocking = True
                try:
                    yield self
                except CancelledError as cancelled:
                    if not future.cancelled():
                        self.cancelled = cancelled
                        yield from self._wait_for(future)
                except Exception:
                    if not future.done():
                        raise
                    # That of the future, which gives it to the work.
        except StopIteration as stop:
            return stop.value
        except CancelledError as error:
            if self._is_broken_off:
                raise TimeoutError from error
            raise
        finally:
            self._is_over = True
            scheduler.due.discard(self)
            work.close()
            if self._timer is not None:
                self._timer.cancel()

    def _pass_on(self) -> Generator[None, None, None]:
        try:
            yield
        except CancelledError as cancelled:
            self.cancelled = cancelled

    def _wait_for(self, future: asyncio.Future[Any]) -> Generator[Any, None, None]:
        """Wait on, even if the task is cancelled more than once."""
        with CancelScope(shield=True):  # or this loop would spin in a cancelled scope
            while not future.done():
                self._asyncio_future_blocking = True
                with suppress(CancelledError, Exception):  # the future has it
                    yield self

    # Called by the task, in place of the methods of the future

    def add_done_callback(
        self, callback: Callable[..., object], *, context: Context | None = None
    ) -> None:
        self._callback, self._context = callback, context
        self._future.add_done_callback(callback, context=context)

    def cancel(self, msg: object = None) -> bool:
        """Wake the task with a cancellation; `False` if it is woken anyway."""
        if self._future.done():
            return False
        if self._patience() == 0:
            return self._future.cancel(msg)
        if not self._future.remove_done_callback(self._callback):
            return False
        cancelled = self._loop.create_future()
        cancelled.cancel(msg)
        self._loop.call_soon(self._callback, cancelled, context=self._context)
        return True

    # Called by anyio, which looks at what tasks wait for

    def done(self) -> bool:
        return self._future.done()

    # Called by the watchdog, in its thread

    def expired(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._time_is_over)

    def _time_is_over(self) -> None:
        if not self._is_over:
            self._abort()
            self._timer = self._loop.call_later(self.seconds, self._break_off)

    def _break_off(self) -> None:
        self._is_broken_off = True
        self._future.cancel()
