"""Worker threads without a limit: each call starts at once.

The framework's threads will not do: all of them may be waiting for a connection that
only the call could release. Nor will `ThreadPoolExecutor`: when it fails to start a
thread it keeps the call and may make it later, say a COMMIT after the rollback; and it
refuses work once the main thread has ended, while other threads still serve.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, ParamSpec, TypeVar

__all__ = ["IDLE_TIMEOUT", "idle_workers", "run_in_worker_thread"]

P = ParamSpec("P")
T = TypeVar("T")

IDLE_TIMEOUT = 10.0  # seconds for which a thread waits for its next call
idle_workers: deque[_Worker] = deque()


class _Worker:
    """A thread that makes one call after the other, and is idle in between."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[_ThreadCall] = SimpleQueue()
        # A daemon, or an idle one would delay the exit of the process. Calls are not
        # lost by that: the event loops that the process waits for await them.
        Thread(target=self._run, name="unitwork-ending", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                call = self.calls.get(timeout=IDLE_TIMEOUT)
            except Empty:
                with suppress(ValueError):  # another call has just taken it
                    idle_workers.remove(self)
                    return
            else:
                call.make(self)
                del call


class _ThreadCall:
    """A call, and the future that gets its result."""

    __slots__ = ("_future", "_loop", "_work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._future = self._loop.create_future()

    @property
    def future(self) -> asyncio.Future[Any]:
        return self._future

    def make(self, worker: _Worker) -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = self._work()
        except StopIteration as error:  # which no future can raise
            failure = RuntimeError("StopIteration was raised")
            failure.__cause__ = error
        except BaseException as error:
            failure = error
        idle_workers.append(worker)
        with suppress(RuntimeError):  # the loop is closed: no task waits for it
            self._loop.call_soon_threadsafe(self._complete, result, failure)
        del self, result, failure  # its traceback refers to this frame

    def _complete(self, result: Any, failure: BaseException | None) -> None:
        if self._future.done():
            return
        if failure is not None:
            self._future.set_exception(failure)
        else:
            self._future.set_result(result)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=idle_workers.clear)  # they are not in a fork


def run_in_worker_thread(
    call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> asyncio.Future[T]:
    """Make a call in a worker thread, at once; return a future to be awaited.

    Raises `RuntimeError` if no thread can be started; then the call is not made.
    `anyio.to_thread` would cost twice as much.
    """
    made = _ThreadCall(partial(copy_context().run, call, *args, **kwargs))
    try:
        worker = idle_workers.pop()
    except IndexError:
        worker = _Worker()
    worker.calls.put(made)
    return made.future
