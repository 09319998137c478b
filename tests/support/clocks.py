"""Time that passes for this process, without a test that waits for it."""

from __future__ import annotations

import time


class Clock:
    """What `time.monotonic()` tells, and the time of the event loop.

    A short time limit could end on a busy machine before the test means it to; a long
    one ends when the test puts the clock forward.
    """

    def __init__(self) -> None:
        self._real = time.monotonic
        self._ahead = 0.0

    def read(self) -> float:
        return self._real() + self._ahead

    def put_forward(self, seconds: float) -> None:
        """Let what is to be done within *seconds* be due now."""
        self._ahead += seconds
