"""The threads in which sync sessions end: as many as are needed at a time.

Not the framework's: those may all wait for a connection that only an ending frees.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

__all__ = ["in_thread"]

P = ParamSpec("P")
T = TypeVar("T")

_MOST = 2**16


class _Threads:
    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(_MOST, "unitwork")


_threads = _Threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.__init__)  # type: ignore[misc]  # a new pool: a fork has none of its threads


def in_thread(
    call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> asyncio.Future[T]:
    """Call in a thread, at once: it waits for no other. To be awaited.

    anyio's own would cost twice as much.
    """
    work = partial(copy_context().run, call, *args, **kwargs)
    return asyncio.get_running_loop().run_in_executor(_threads.pool, work)
