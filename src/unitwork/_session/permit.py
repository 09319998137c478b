"""The permit of one session to use a connection."""

from __future__ import annotations

from asyncio import Lock
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from .._engine.admission import Gate

__all__ = ["Permit"]


class Permit:
    """One permit of the admission *gate*, held by one session, or not.

    Acquired by one task or thread at a time; may be released at any time.
    """

    __slots__ = ("_acquiring", "_gate", "_held", "_is_chosen", "_own", "find_gate")

    def __init__(self, gate: Gate) -> None:
        self._gate = self._own = gate
        self.find_gate: Callable[[], Gate | None] | None = None
        """Finds the gate to wait at, where a session may use one of several pools."""
        self._held: list[None] = []
        """Has one item or none: popping it is atomic between threads."""
        self._acquiring: Lock | None = None
        self._is_chosen = False
        """Whether the gate is that of the connection that is about to be made."""

    @property
    def is_held(self) -> bool:
        return bool(self._held)

    @property
    def is_awaited(self) -> bool:
        """Whether a task waits for it on the event loop."""
        lock = self._acquiring
        return lock is not None and lock.locked() and not self._held

    def use(self, gate: Gate | None) -> None:
        """Wait at *gate* until the next release; release a permit of another one.

        `None` is the gate that it was made with.
        """
        gate = self._own if gate is None else gate
        if gate is not self._gate:
            self.release()
            self._gate = gate
        self._is_chosen = True

    def _find_gate(self) -> None:
        if self.find_gate is not None and not self._is_chosen:
            self._gate = self.find_gate() or self._own

    async def acquire(self) -> bool:
        """Wait on the event loop; return whether it was acquired now."""
        if self._held:
            return False
        if self._acquiring is None:
            self._acquiring = Lock()
        async with self._acquiring:  # two tasks of one unit need one permit
            if self._held:
                return False
            self._find_gate()
            await self._gate.acquire()
            self._held.append(None)
            return True

    def acquire_in_thread(self) -> bool:
        """Wait in a worker thread; return whether it was acquired now.

        Does not wait in other threads: see `AdmissionGate.acquire_in_thread()`.
        """
        self._gate.warn_on_event_loop()
        if self._held:
            return False
        self._find_gate()
        if not self._gate.acquire_in_thread():
            return False
        self._held.append(None)
        return True

    def acquire_in_greenlet(self) -> bool:
        """Wait on the event loop, inside an `AsyncSession`, which is about to connect.

        Returns whether it was acquired now. Outside (`get_bind()` by hand) no
        connection follows, and this does nothing.
        """
        if self._held or not in_greenlet():
            return False
        return bool(await_only(self.acquire()))

    def release(self) -> None:
        """Release it once, even if two threads do so at the same time."""
        self._is_chosen = False
        with suppress(IndexError):
            while self._held:
                self._held.pop()
                self._gate.release()
