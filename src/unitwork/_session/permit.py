"""The permit of one session to use a connection."""

from __future__ import annotations

from asyncio import Lock
from contextlib import suppress

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from .._engine.admission import Gate

__all__ = ["Permit"]


class Permit:
    """One permit of the admission *gate*, held by one session, or not.

    Acquired by one task or thread at a time; may be released at any time.
    """

    __slots__ = ("_acquiring", "_gate", "_held")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._held: list[None] = []
        """Has one item or none: popping it is atomic between threads."""
        self._acquiring: Lock | None = None

    @property
    def is_held(self) -> bool:
        return bool(self._held)

    async def acquire(self) -> bool:
        """Wait on the event loop; return whether it was acquired now."""
        if self._held:
            return False
        if self._acquiring is None:
            self._acquiring = Lock()
        async with self._acquiring:  # two tasks of one unit need one permit
            if self._held:
                return False
            await self._gate.acquire()
            self._held.append(None)
            return True

    def acquire_in_thread(self) -> bool:
        """Wait in a worker thread; return whether it was acquired now.

        Does not wait in other threads: see `AdmissionGate.acquire_in_thread()`.
        """
        self._gate.warn_on_event_loop()
        if self._held or not self._gate.acquire_in_thread():
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
        with suppress(IndexError):
            while self._held:
                self._held.pop()
                self._gate.release()
