"""A cancellation of our own, distinguished from those of other callers."""

from __future__ import annotations

import asyncio
import sys
from traceback import walk_tb
from typing import Any

from .._error_contexts import with_contexts

__all__ = ["TaskCancellation", "may_hide_cancellation"]

_HIDING = asyncio.CancelledError, BaseExceptionGroup


class TaskCancellation:
    """Cancels a task at most once, and takes that back when it has been caught.

    `asyncio` counts the requests to cancel a task: what is left after `uncancel()` was
    requested elsewhere, and has to be passed on.
    """

    __slots__ = ("_before", "_task", "requested")

    def __init__(self, task: asyncio.Task[Any], before: int | None = None) -> None:
        """*before*: how often it had been cancelled already; now, if that is `None`."""
        self._task = task
        self._before = task.cancelling() if before is None else before
        self.requested = False
        """Whether the task has been cancelled here, and `release()` not called yet."""

    def cancel(self) -> None:
        """Cancel the task; in the thread of its event loop."""
        self.requested = True
        self._task.cancel()

    def release(self) -> bool:
        """Take the cancellation back; return whether it was the only one."""
        requested, self.requested = self.requested, False
        return requested and self._task.uncancel() <= self._before


def may_hide_cancellation(
    error: BaseException, task: asyncio.Task[Any], before: int
) -> bool:
    """Whether *error* may have taken the place of a cancellation of *task*.

    *before*: how often that had been cancelled already. What it counts does not tell:
    before Python 3.13 that of an `asyncio.TaskGroup` which has failed is counted on.
    """
    if sys.version_info >= (3, 13) or not isinstance(error, Exception):
        return True
    errors = [*with_contexts(error)]
    if task.cancelling() - before <= sum(_left_by_group(x, task) for x in errors):
        return False
    return any(isinstance(each, _HIDING) for each in errors)


def _left_by_group(error: BaseException, task: asyncio.Task[Any]) -> bool:
    """Whether *error* is that of a task group which has cancelled *task* at its end."""
    for frame, _ in walk_tb(error.__traceback__):
        found = frame.f_locals
        group = found.get("self")
        if isinstance(group, asyncio.TaskGroup) and found.get("et", "") is None:
            private: Any = group
            return private._parent_task is task and private._parent_cancel_requested
    return False
