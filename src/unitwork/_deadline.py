"""The time by which a request must be done, whatever attempt it is at."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Deadline"]


class Deadline:
    """Cancels the task of a request when its time is over."""

    __slots__ = ("_before", "_expired", "_limit", "_timer", "_until")

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._expired = False
        self._before = 0
        self._until = time.monotonic() + limit
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, task: asyncio.Task[Any], expire: Callable[[], bool]) -> None:
        """Cancel *task* when the time is over, unless *expire* says no."""
        if math.isinf(self._limit):
            return
        loop = task.get_loop()
        self._before = task.cancelling()

        def due() -> None:
            if expire():
                self._expired = True
                task.cancel()

        def start() -> None:
            self._timer = loop.call_later(self._until - time.monotonic(), due)

        if asyncio._get_running_loop() is loop:
            start()
        else:  # in a thread of the framework
            loop.call_soon_threadsafe(start)

    def stop(self, task: asyncio.Task[Any]) -> bool:
        """Stop watching; say whether it was this, and only this, that cancelled."""
        if self._timer is not None:
            self._timer.cancel()
        expired, self._expired = self._expired, False
        return expired and task.uncancel() <= self._before
