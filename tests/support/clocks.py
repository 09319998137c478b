"""Time that passes for the event loop, without a test that waits for it."""

from __future__ import annotations

import asyncio


def put_forward(seconds: float) -> None:
    """Let what the running event loop is to do within *seconds* be due now.

    A short time limit in its place could end on a busy machine before it is meant to.
    """
    loop = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds  # type: ignore[method-assign]
