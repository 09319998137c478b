"""The time by which a request must be done, whatever attempt it is at."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Deadline"]

_PAUSE = 0.005  # seconds between two looks at a COMMIT by hand


class Deadline:
    """Cancels the task of a request when its time is over."""

    __slots__ = ("_before", "_expired", "_timer", "limit", "until")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._expired = False
        self._before = 0
        self.until = time.monotonic() + limit
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, task: asyncio.Task[Any], expire: Callable[[], bool | None]) -> None:
        """Cancel *task* when the time is over, unless *expire* says no.

        `None` says that it is too early, and it is asked again soon.
        """
        if math.isinf(self.limit):
            return
        loop = task.get_loop()
        self._before = task.cancelling()

        def due() -> None:
            expires = expire()
            if expires is None:
                self._timer = loop.call_later(_PAUSE, due)
            elif expires:
                self._expired = True
                task.cancel()

        def start() -> None:
            self._timer = loop.call_later(self.until - time.monotonic(), due)

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
