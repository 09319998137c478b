"""A cancellation of our own, distinguished from those of other callers."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["TaskCancellation"]


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
