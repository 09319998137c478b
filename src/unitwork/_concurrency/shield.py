"""Runs work to its end, though the task that waits for it is cancelled."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from anyio import CancelScope

__all__ = ["uninterrupted"]

log = logging.getLogger("unitwork")

T = TypeVar("T")


async def uninterrupted(
    work: Coroutine[Any, Any, T],
    patience: Callable[[], float | None] = lambda: None,
    context: Context | None = None,
) -> T:
    """Run *work* to its end in a task of its own, also if this task is cancelled.

    It runs in *context*, or in a copy of the current one. A cancellation, native or by
    an anyio scope, is raised here afterwards. It also cancels the *work*, after
    the seconds that *patience* returns when the cancellation arrives, if any.
    """
    # As `asyncio.shield()`, at a lower cost: cancelling this task cancels the future
    # that it waits for, and not the work.
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = _start(_signal_done(work, done), context)
    try:
        await done
        if not task.done():  # a task factory has wrapped it
            await asyncio.wait((task,))
        return task.result()
    except asyncio.CancelledError as cancelled:
        _cancel_after(patience, task)
        await _wait_for(task, patience)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a unit failed to end while it was cancelled", exc_info=error)
        raise cancelled


def _start(work: Coroutine[Any, Any, T], context: Context | None) -> asyncio.Task[T]:
    """Start *work* in a task, eagerly where this Python can do that."""
    if sys.version_info >= (3, 12):
        loop = asyncio.get_running_loop()
        if loop.get_task_factory() is None:
            return asyncio.Task(work, loop=loop, context=context, eager_start=True)
    return asyncio.create_task(work, context=context)


async def _signal_done(work: Coroutine[Any, Any, T], done: asyncio.Future[None]) -> T:
    try:
        return await work
    finally:  # the task is over before the one that waits for *done* runs
        if not done.done():
            done.set_result(None)


def _cancel_after(
    patience: Callable[[], float | None], task: asyncio.Task[Any]
) -> None:
    seconds = None if task.done() else patience()
    if seconds == 0:
        task.cancel()
    elif seconds is not None:
        task.get_loop().call_later(seconds, task.cancel)


async def _wait_for(
    task: asyncio.Task[Any], patience: Callable[[], float | None]
) -> None:
    """Wait for *task*, even if the current task is cancelled more than once."""
    with CancelScope(shield=True):  # or this loop would spin in a cancelled anyio scope
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError:
                _cancel_after(patience, task)
