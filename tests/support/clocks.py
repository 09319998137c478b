"""Time that passes for this process, without a test that waits for it."""

from __future__ import annotations

import time

from unitwork._concurrency.watchdog import Watchdog
from unitwork._transaction import statement_events

__all__ = ["CLOCK", "Clock"]


class Clock:
    """What `time.monotonic()` tells, and the time of the event loop.

    A short time limit could end on a busy machine before the test means it to; a long
    one ends when the test puts the clock forward. It is never put back: what a thread
    waits for until some time would be late by as much, in another test.
    """

    def __init__(self) -> None:
        self._real = time.monotonic
        self._ahead = 0.0

    def install(self) -> None:
        """From now on, for good, it is the clock of this process."""
        time.monotonic = self.read
        setattr(statement_events, "monotonic", self.read)  # noqa: B010  # its own name

    def read(self) -> float:
        return self._real() + self._ahead

    def put_forward(self, seconds: float) -> None:
        """Let what is to be done within *seconds* be due now."""
        self._ahead += seconds
        _Waking().__enter__()  # it is not left again


class _Waking(Watchdog):
    """Wakes the thread of the watchdogs, which waits for an earlier time."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(float("-inf"))

    def expired(self) -> None:
        pass


CLOCK = Clock()
