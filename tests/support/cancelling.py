"""Cancel a piece of work at its first suspension, at its second, and so on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from itertools import count
from typing import Any

from anyio import CancelScope

Work = Coroutine[Any, Any, Any]
Cancel = Callable[[], object]
Kind = Callable[[Work], tuple[Work, Cancel]]


def natively(work: Work) -> tuple[Work, Cancel]:
    """As `task.cancel()` does it: once."""
    task = asyncio.ensure_future(work)

    async def wait() -> None:
        await asyncio.wait((task,))
        if not task.cancelled():
            task.result()

    return wait(), task.cancel


def by_scope(work: Work) -> tuple[Work, Cancel]:
    """As anyio does it: again and again, at each await."""
    scope = CancelScope()

    async def within() -> None:
        with scope:
            await work

    return within(), scope.cancel


KINDS = [natively, by_scope]


async def at_each_suspension(
    make: Callable[[int], Work], kind: Kind
) -> AsyncIterator[int]:
    """Run `make(k)` for k = 1, 2, …, cancelled at the k-th suspension.

    Yields k after each run. Ends with the run that was over before it came to that.
    """
    for k in count(1):
        suspensions = await cancelled_at(k, make(k), kind)
        yield k
        if suspensions < k:
            return


async def cancelled_at(k: int, work: Work, kind: Kind) -> int:
    """Run *work*, cancelled at its k-th suspension; gives how often it suspended.

    Counts the suspensions of tasks that the work starts too, and of no others.
    """
    watch = _Watch(k)
    token = _watch.set(watch)
    try:
        with watched_tasks():
            wrapped, watch.act = kind(watch.over(work))
            await wrapped
    finally:
        _watch.reset(token)
    return watch.suspensions


@contextmanager
def watched_tasks() -> Iterator[None]:
    """Let tasks count for the work that starts them. Around what runs side by side."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(_start_task)
    try:
        yield
    finally:
        loop.set_task_factory(before)


def _start_task(
    loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
) -> asyncio.Task[Any]:
    watch = (options.get("context") or copy_context()).get(_watch)
    if watch is not None and coro.__name__ != "over":
        coro = watch.over(coro)
    return asyncio.Task(coro, loop=loop, **options)


class _Watch:
    def __init__(self, act_at: int) -> None:
        self.suspensions = 0
        self.act: Cancel | None = None
        self._act_at = act_at

    async def over(self, work: Work) -> Any:
        return await _Suspending(work, self._note)

    def _note(self) -> None:
        self.suspensions += 1
        if self.suspensions == self._act_at and self.act is not None:
            asyncio.get_running_loop().call_soon(self.act)


# A task that an earlier piece of work has left behind counts for that one.
_watch: ContextVar[_Watch] = ContextVar("watch")


class _Suspending:
    """Awaits *work*, and calls *note* each time it suspends."""

    def __init__(self, work: Work, note: Callable[[], None]) -> None:
        self._work = work
        self._note = note

    def __await__(self) -> Generator[Any, None, Any]:
        error: BaseException | None = None
        while True:
            try:
                future = (
                    self._work.send(None) if error is None else self._work.throw(error)
                )
            except StopIteration as stop:
                return stop.value
            self._note()
            error = None
            try:
                yield future
            except GeneratorExit:
                self._work.close()
                raise
            except BaseException as thrown:
                error = thrown
