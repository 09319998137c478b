"""The event loop of a connection: asyncio's, and no other."""

from __future__ import annotations

import asyncio

from ..errors import UsageError

__all__ = ["ONLY_ASYNCIO", "current_task"]

ONLY_ASYNCIO = (
    "unitwork runs on asyncio only, and this application runs on another event loop, "
    "such as trio: start the server with its asyncio workers"
)


def current_task() -> asyncio.Task[object] | None:
    """The task that runs the application. Raises `UsageError` without asyncio."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        raise UsageError(ONLY_ASYNCIO) from None
