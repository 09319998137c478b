"""Recovers at regular intervals, as long as an application runs."""

from __future__ import annotations

import asyncio
import logging

from .._execution.async_runner import arun
from .order import CommitOrder
from .resolve import recovery

__all__ = ["MIN_AGE", "Janitor"]

log = logging.getLogger("unitwork")

MIN_AGE = 60.0
"""Seconds for which a transaction has been prepared before it counts as left behind."""


class Janitor:
    """A task that recovers, from the start of an application to its shutdown."""

    def __init__(self, order: CommitOrder) -> None:
        self._order = order
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _work(self) -> None:
        while True:
            try:
                await arun(recovery(self._order, MIN_AGE))
            except Exception as error:  # of an engine's callable, or a driver
                log.error("recovery failed, and is tried again later", exc_info=error)
            await asyncio.sleep(MIN_AGE)
