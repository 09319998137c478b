"""How far it is, and how long it will still take."""

import sys
import time


class Progress:
    """A bar on a terminal; elsewhere a line for each part."""

    def __init__(self, title: str, steps: int) -> None:
        self._title = title
        self._steps = max(steps, 1)
        self._done = 0
        self._start = time.monotonic()
        self._alive = sys.stderr.isatty()
        if not self._alive:
            print(f"{title} …", file=sys.stderr, flush=True)

    def step(self, doing: str = "") -> None:
        """One step has begun: *doing*."""
        if self._alive:
            self._draw(doing)
        self._done += 1

    def end(self) -> None:
        took = f"{self._title}: {time.monotonic() - self._start:.0f} s"
        start = "\r\x1b[K" if self._alive else ""
        print(start + took, file=sys.stderr, flush=True)

    def _draw(self, doing: str) -> None:
        part = min(self._done / self._steps, 1.0)
        spent = time.monotonic() - self._start
        left = f"{spent / part - spent:.0f} s left" if part > 0.01 else ""
        bar = ("#" * round(20 * part)).ljust(20, ".")
        line = f"\r\x1b[K{self._title} [{bar}] {part:4.0%} {left} {doing}"
        print(line, end="", file=sys.stderr, flush=True)
