"""Cancel a piece of work at its first suspension, at its second, and so on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
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
    Counts the suspensions of tasks that the work starts too.
    """
    for k in count(1):
        watch = _Watch(k)
        await watch.run(make(k), kind)
        yield k
        if watch.suspensions < k:
            return


class _Watch:
    def __init__(self, act_at: int) -> None:
        self.suspensions = 0
        self._act_at = act_at
        self._act: Cancel | None = None

    async def run(self, work: Work, kind: Kind) -> None:
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()
        loop.set_task_factory(self._factory)
        try:
            wrapped, self._act = kind(self._watched(work))
            await wrapped
        finally:
            loop.set_task_factory(before)

    def _factory(
        self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
    ) -> asyncio.Task[Any]:
        if coro.__name__ != "_watched":
            coro = self._watched(coro)
        return asyncio.Task(coro, loop=loop, **options)

    async def _watched(self, work: Work) -> Any:
        return await _Suspending(work, self._note)

    def _note(self) -> None:
        self.suspensions += 1
        if self.suspensions == self._act_at and self._act is not None:
            asyncio.get_running_loop().call_soon(self._act)


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
