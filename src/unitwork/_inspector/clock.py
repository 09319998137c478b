"""The time of day of what was measured by `time.monotonic()`."""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """Both clocks differ by the same number all the time, so that times compare."""

    def __init__(self) -> None:
        self.offset = time.time() - time.monotonic()

    def wall(self, at: float) -> float:
        """Seconds since 1970, to the microsecond."""
        return round(at + self.offset, 6)

    def now(self) -> float:
        return self.wall(time.monotonic())
