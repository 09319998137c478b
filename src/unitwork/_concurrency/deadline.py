"""The deadline of a request, all its attempts included."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

from .cancellation import TaskCancellation

__all__ = ["Deadline"]

_POLL_INTERVAL = 0.005  # seconds, while a session.commit() is under way


class Deadline:
    """Cancels the task of a request when its time is over."""

    __slots__ = ("_cancellation", "_timer", "limit", "until")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.until = time.monotonic() + limit
        self._cancellation: TaskCancellation | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, task: asyncio.Task[Any], expire: Callable[[], bool | None]) -> None:
        """Cancel *task* when the time is over, if *expire* then returns `True`.

        `False` lets the task go on; `None` means not yet: *expire* is called again
        soon.
        """
        if math.isinf(self.limit):
            return
        loop = task.get_loop()
        self._cancellation = cancellation = TaskCancellation(task)

        def due() -> None:
            expires = expire()
            if expires is None:
                self._timer = loop.call_later(_POLL_INTERVAL, due)
            elif expires:
                cancellation.cancel()

        def start() -> None:
            self._timer = loop.call_later(self.until - time.monotonic(), due)

        if _running_loop() is loop:
            start()
        else:  # in a thread of the framework
            loop.call_soon_threadsafe(start)

    def stop(self) -> bool:
        """Stop watching; return whether this, and only this, has cancelled the task."""
        if self._timer is not None:
            self._timer.cancel()
        return self._cancellation is not None and self._cancellation.release()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
