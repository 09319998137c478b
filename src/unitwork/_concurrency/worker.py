"""Which task or thread calls."""

from __future__ import annotations

import asyncio
import threading

__all__ = ["current_worker"]


def current_worker() -> object:
    """The task that calls; the thread, where there is none."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        task = None
    return task or threading.current_thread()
