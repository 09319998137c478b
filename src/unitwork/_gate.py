"""The async gate of a sync database: nobody waits for a connection in a thread.

Threads that wait for a connection, and connections that wait for a thread, starve each
other (framework threads are few). So a unit of a sync `Database` is let in here first,
on the event loop, as many at a time as the pool has connections.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections import deque
from concurrent.futures import Future
from threading import Lock

from anyio import from_thread, to_thread

from .errors import BlockingSessionWarning, PoolTimeoutError

__all__ = ["Gate"]

_ALL = 2**31


class Gate:
    """Lets in *size* units at a time, first come, first served; `None`: all of them.

    Safe to use from several threads and event loops at once.
    """

    __slots__ = ("_free", "_lock", "_waiting", "_warned", "size", "timeout")

    def __init__(self, size: int | None, timeout: float = 30.0) -> None:
        self.size = size
        self.timeout = timeout
        self._free = _ALL if size is None else size
        self._warned = False
        self._lock = Lock()
        self._waiting: deque[Future[None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def try_enter(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        with self._lock:
            if self._free and not self._waiting:
                self._free -= 1
                return True
            return False

    async def enter(self) -> None:
        """Wait for a place; raise `PoolTimeoutError` after *timeout* seconds."""
        if self.try_enter():
            return
        with self._lock:
            place: Future[None] = Future()
            self._waiting.append(place)
            self._admit()
        try:
            async with asyncio.timeout(self.timeout):
                await asyncio.wrap_future(place)
        except TimeoutError:
            self._give_up(place)
            raise self._timed_out(f"within {self.timeout:g} seconds") from None
        except BaseException:
            self._give_up(place)
            raise

    def enter_in_thread(self) -> bool:
        """Wait for a place in a thread, the loop's own thread excepted.

        A worker thread lends its place in the thread pool to others while it waits,
        or those inside might wait for a thread for as long as this one waits for them.
        In a thread that is not the framework's the pool itself may make it wait; says
        whether a place was taken.
        """
        if self.try_enter():
            return True
        if _on_event_loop():
            raise self._timed_out(
                "at once, and waiting here would block the event loop",
                "get the session from `Depends(db.session)`, which can wait, or ",
            )
        try:
            from_thread.check_cancelled()
        except RuntimeError:
            return False
        from_thread.run(self._enter_lending)
        return True

    def warn_on_event_loop(self) -> None:
        """Warn, the first time, that whoever calls this blocks the event loop."""
        if self._warned or not _on_event_loop():
            return
        self._warned = True
        warnings.warn(
            "a sync session is used on the event loop's own thread: every other "
            "request waits meanwhile. Make the endpoint a plain `def`, or use "
            "AsyncDatabase",
            BlockingSessionWarning,
            stacklevel=_level_of_the_caller(),
        )

    async def _enter_lending(self) -> None:
        limiter = to_thread.current_default_thread_limiter()
        limiter.total_tokens += 1
        try:
            await self.enter()
        finally:
            limiter.total_tokens -= 1

    def leave(self) -> None:
        """Give the place back."""
        with self._lock:
            self._free += 1
            self._admit()

    def _admit(self) -> None:
        while self._free and self._waiting:
            place = self._waiting.popleft()
            if place.set_running_or_notify_cancel():
                self._free -= 1
                place.set_result(None)

    def _give_up(self, place: Future[None]) -> None:
        with self._lock:
            if place in self._waiting:
                self._waiting.remove(place)
                return
        # A wrapped future that is cancelled cancels its place, unless that was given.
        if place.done() and not place.cancelled():
            self.leave()

    def _timed_out(self, when: str, remedy: str = "") -> PoolTimeoutError:
        return PoolTimeoutError(
            f"no connection became free {when}: {self.size} units hold them all, "
            f"{self.waiting} wait; {remedy}make the pool larger or the units shorter"
        )


def _level_of_the_caller() -> int:
    """The `stacklevel` of the first frame that is neither ours nor SQLAlchemy's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_machinery(frame.f_globals["__name__"]):
        level, frame = level + 1, frame.f_back
    return level


def _is_machinery(module: str) -> bool:
    return module.partition(".")[0] in ("unitwork", "sqlalchemy")


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
