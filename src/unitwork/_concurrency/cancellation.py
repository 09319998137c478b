"""A cancellation of our own, distinguished from those of other callers."""

from __future__ import annotations

import asyncio
import sys
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


def may_hide_cancellation(error: BaseException) -> bool:
    """Whether *error* may have taken the place of a cancellation of its task.

    `task.cancelling()` alone does not tell: before Python 3.13 it goes on to count that
    of an `asyncio.TaskGroup` which has failed, and was handled.
    """
    if sys.version_info >= (3, 13) or not isinstance(error, Exception):
        return True
    return any(isinstance(each, _HIDING) for each in with_contexts(error))
