"""An alarm clock for threads: one for all, as a timer each would cost too much."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Thread

__all__ = ["alarm"]


class _Clock:
    """Calls what is due, in a thread that starts when it is first needed."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._due: dict[object, tuple[float, Callable[[], None]]] = {}
        self._wakes_at = float("inf")
        self._thread: Thread | None = None

    def set(self, key: object, seconds: float, act: Callable[[], None]) -> None:
        at = time.monotonic() + seconds
        with self._changed:
            self._due[key] = (at, act)
            if self._thread is None or not self._thread.is_alive():  # or forked
                self._thread = Thread(
                    target=self._run, name="unitwork-alarm", daemon=True
                )
                self._thread.start()
            elif at < self._wakes_at:
                self._changed.notify()

    def unset(self, key: object) -> None:
        with self._changed:
            self._due.pop(key, None)

    def _run(self) -> None:
        while True:
            for act in self._wait():
                act()

    def _wait(self) -> list[Callable[[], None]]:
        with self._changed:
            earliest = min((at for at, _ in self._due.values()), default=None)
            now = time.monotonic()
            if earliest is None or earliest > now:
                self._wakes_at = earliest if earliest is not None else float("inf")
                self._changed.wait(None if earliest is None else earliest - now)
            self._wakes_at = float("-inf")
            now = time.monotonic()
            due = [key for key, (at, _) in self._due.items() if at <= now]
            return [self._due.pop(key)[1] for key in due]


_clock = _Clock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_clock.__init__)  # type: ignore[misc]  # a new lock: nobody else is left to free it


@contextmanager
def alarm(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Call *act*, in a thread of its own, if the block takes longer than *seconds*."""
    key = object()
    _clock.set(key, seconds, act)
    try:
        yield
    finally:
        _clock.unset(key)
