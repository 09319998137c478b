"""Admission to the connections of a sync database, waited for on the event loop.

Threads that wait for a connection, and units with a connection that wait for a thread,
starve each other: the framework has few threads. So a unit of a sync `Database` first
acquires a permit here, without a thread; there are as many as the pool has connections.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Lock
from typing import Protocol
from weakref import ref

from anyio import from_thread, to_thread
from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from .._call_site import level_of_the_caller
from .._concurrency.fork import forget_after_fork
from .._concurrency.worker import on_event_loop
from ..errors import BlockingSessionWarning, PoolTimeoutError
from .create import capacity
from .hold_watch import held_connections, listed
from .per_pool import PerPool

__all__ = ["AdmissionGate", "Gate", "gate_of"]

_UNLIMITED = 2**31


class Gate(Protocol):
    """What a unit waits for before it uses a connection."""

    async def acquire(self) -> None:
        """Wait on the event loop; raise when that takes too long."""

    def acquire_in_thread(self) -> bool:
        """Wait in a thread; `False`: not acquired, but what follows may wait."""
        ...

    def release(self) -> None:
        """Let the next one in; may be called at any time."""

    def warn_on_event_loop(self) -> None:
        """Warn, once, if a sync session is used on the thread of an event loop."""


class AdmissionGate:
    """Has *size* permits, first come, first served; `None`: no limit.

    Acquiring one waits for *timeout* seconds at most. Safe to use from several threads
    and event loops at once.
    """

    __slots__ = (
        "__weakref__",
        "_engine",
        "_free",
        "_lock",
        "_permits",
        "_pool_waits",
        "_waiting",
        "_warned",
        "size",
        "timeout",
    )

    def __init__(
        self,
        size: int | None,
        timeout: float = 30.0,
        *,
        pool_waits: bool = True,
        engine: Engine | None = None,
    ) -> None:
        self.size = size
        self._engine = (lambda: None) if engine is None else ref(engine)
        self._pool_waits = pool_waits
        """Whether the pool makes its users wait, should they not wait here."""
        self.timeout = timeout
        self._permits = _UNLIMITED if size is None else size
        self._warned = False
        self.forget_parent()
        forget_after_fork(self)

    def forget_parent(self) -> None:
        self._free = self._permits
        self._lock = Lock()
        self._waiting: deque[Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a permit."""
        return len(self._waiting)

    @property
    def in_use(self) -> int:
        """How many permits are held."""
        return self._permits - self._free

    def try_acquire(self) -> bool:
        """Acquire a permit if one is free and no other unit waits for it."""
        with self._lock:
            if self._free and not self._waiting:
                self._free -= 1
                return True
            return False

    async def acquire(self) -> None:
        """Wait for a permit; raise `PoolTimeoutError` after *timeout* seconds."""
        if self.try_acquire():
            return
        with self._requested() as permit:
            async with asyncio.timeout(self.timeout):
                await asyncio.wrap_future(permit)

    def acquire_in_thread(self) -> bool:
        """Wait for a permit in a thread, but not in that of the event loop.

        While a thread of the framework waits, their limit is one higher: otherwise
        units that hold permits might wait for this thread while it waits for them. In
        any other thread this returns `False` if no permit is free and the pool waits.
        """
        if self.try_acquire():
            return True
        if on_event_loop():
            raise self._timed_out(
                "at once, and waiting here would block the event loop",
                "get the session from `Depends(db.session)`, which can wait, or ",
            )
        try:
            from_thread.check_cancelled()
        except RuntimeError:
            if self._pool_waits:
                return False
            with self._requested() as permit:
                permit.result(self.timeout)
            return True
        from_thread.run(self._acquire_with_extra_thread)
        return True

    @contextmanager
    def _requested(self) -> Iterator[Future[None]]:
        """Request a permit, for which the block waits; abandon it if that fails."""
        permit: Future[None] = Future()
        with self._lock:
            self._waiting.append(permit)
            self._grant()
        try:
            yield permit
        except TimeoutError:
            self._abandon(permit)
            raise self._timed_out(f"within {self.timeout:g} seconds") from None
        except BaseException:
            self._abandon(permit)
            raise

    def warn_on_event_loop(self) -> None:
        """Warn, once, if this is called on the thread of an event loop."""
        if self._warned or not on_event_loop():
            return
        self._warned = True
        warnings.warn(
            "a sync session is used on the event loop's own thread: every other "
            "request waits meanwhile. Make the endpoint a plain `def`, or use "
            "AsyncDatabase",
            BlockingSessionWarning,
            stacklevel=level_of_the_caller(),
        )

    async def _acquire_with_extra_thread(self) -> None:
        limiter = to_thread.current_default_thread_limiter()
        limiter.total_tokens += 1
        try:
            await self.acquire()
        finally:
            limiter.total_tokens -= 1

    def release(self) -> None:
        """Release a permit."""
        with self._lock:
            # Not above: in the child of a fork an inherited unit may end.
            self._free = min(self._free + 1, self._permits)
            self._grant()

    def _grant(self) -> None:
        while self._free and self._waiting:
            permit = self._waiting.popleft()
            if permit.set_running_or_notify_cancel():
                self._free -= 1
                permit.set_result(None)

    def _abandon(self, permit: Future[None]) -> None:
        with self._lock:
            if permit in self._waiting:
                self._waiting.remove(permit)
                return
        # Cancelling the wrapped future has cancelled *permit*, unless it was granted.
        if permit.done() and not permit.cancelled():
            self.release()

    def _timed_out(self, when: str, remedy: str = "") -> PoolTimeoutError:
        engine = self._engine()
        held = [] if engine is None else held_connections(engine)
        return PoolTimeoutError(
            f"no connection became free {when}: {self.size} units hold them all, "
            f"{self.waiting} wait; {remedy}make the pool larger or the units shorter"
            + listed(held)
        )


def _make_gate(engine: Engine) -> AdmissionGate:
    if isinstance(engine.pool, QueuePool):
        return AdmissionGate(capacity(engine), engine.pool.timeout(), engine=engine)
    return AdmissionGate(capacity(engine), pool_waits=False, engine=engine)


_gates = PerPool(_make_gate)


def gate_of(engine: Engine) -> AdmissionGate:
    """The gate of *engine*'s pool, however many engines and databases share it."""
    return _gates.of(engine)
