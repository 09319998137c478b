"""What has begun to end is not torn in two: work that no cancellation interrupts."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

from anyio import CancelScope

__all__ = ["uninterrupted"]

log = logging.getLogger("unitwork")

T = TypeVar("T")


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
    # What `asyncio.shield()` does, with less to wait for. To cancel this task cancels
    # the future and not the work.
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = _start(_announced(work, done), context)
    try:
        await done
        if not task.done():  # a task factory has put something around it
            await asyncio.wait((task,))
        return task.result()
    except asyncio.CancelledError as cancelled:
        if not task.done() and interruptible():
            task.cancel()
        await _see_through(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a unit failed to end while it was cancelled", exc_info=error)
        raise cancelled


def _start(work: Coroutine[Any, Any, T], context: Context | None) -> asyncio.Task[T]:
    """Run *work* in a task; up to where it first waits at once, if Python can."""
    if sys.version_info >= (3, 12):
        loop = asyncio.get_running_loop()
        if loop.get_task_factory() is None:
            return asyncio.Task(work, loop=loop, context=context, eager_start=True)
    return asyncio.create_task(work, context=context)


async def _announced(work: Coroutine[Any, Any, T], done: asyncio.Future[None]) -> T:
    try:
        return await work
    finally:  # the task is over before anybody who waits for this runs
        if not done.done():
            done.set_result(None)


async def _see_through(task: asyncio.Task[Any]) -> None:
    """Wait for *task*, though this one is cancelled, and maybe more than once."""
    with CancelScope(shield=True):  # or the loop would spin in a cancelled anyio scope
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
