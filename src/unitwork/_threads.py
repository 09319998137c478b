"""The threads in which sync sessions end: as many as are needed at a time.

Not the framework's: those may all wait for a connection that only an ending frees. And
no pool of the standard library: what `ThreadPoolExecutor` could find no thread for it
may still do later, a COMMIT after the rollback; and it takes no more work once the main
thread is over, whatever other threads still serve.
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

__all__ = ["in_thread"]

P = ParamSpec("P")
T = TypeVar("T")

_KEPT = 10.0  # seconds for which a thread waits for more to do
_idle: deque[_Worker] = deque()


class _Worker:
    """A thread that makes one call after the other, and lies idle in between."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[_Call] = SimpleQueue()
        # A daemon: a process that exits waits for its event loops, and they for us.
        Thread(target=self._run, name="unitwork-ending", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                call = self.calls.get(timeout=_KEPT)
            except Empty:
                with suppress(ValueError):  # somebody has just taken it
                    _idle.remove(self)
                    return
            else:
                call.make(self)
                del call


class _Call:
    """What is to be done, and whom to tell."""

    __slots__ = ("_future", "_loop", "_work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._future = self._loop.create_future()

    @property
    def answer(self) -> asyncio.Future[Any]:
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
        _idle.append(worker)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, result, failure)
        del self, result, failure  # whose traceback leads back to here

    def _settle(self, result: Any, failure: BaseException | None) -> None:
        if self._future.done():
            return
        if failure is not None:
            self._future.set_exception(failure)
        else:
            self._future.set_result(result)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # a fork has none of its threads


def in_thread(
    call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> asyncio.Future[T]:
    """Call in a thread, at once: it waits for no other. To be awaited.

    Raises `RuntimeError` if no thread can be had; then nothing has been called.
    anyio's own threads would cost twice as much.
    """
    made = _Call(partial(copy_context().run, call, *args, **kwargs))
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    worker.calls.put(made)
    return made.answer
