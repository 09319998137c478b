"""Which task or thread calls, and whether that is the event loop's own thread."""

from __future__ import annotations

import asyncio
import threading

__all__ = ["current_worker", "on_event_loop"]


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
