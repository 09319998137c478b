"""Which task or thread calls, and whether that is the event loop's own thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from typing import Any

__all__ = ["awaits_any", "current_worker", "on_event_loop"]


def current_worker() -> object:
    """The task that calls; the thread, where there is none."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        task = None
    return task or threading.current_thread()


def on_event_loop() -> bool:
    """Whether an event loop of asyncio's runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def awaits_any(task: asyncio.Task[Any], others: Collection[object]) -> bool:
    """Whether *task* awaits one of the tasks *others*, also through other tasks.

    Alone or by `asyncio.gather()`; else that can't be known before Python 3.14.
    """
    awaited: Any = task
    while (awaited := getattr(awaited, "_fut_waiter", None)) is not None:
        if awaited in others or any(each in others for each in _gathered(awaited)):
            return True
    return False


def _gathered(future: Any) -> Collection[object]:
    found: Collection[object] = getattr(future, "_children", ())
    return found
