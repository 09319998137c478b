"""An alarm clock: one for all, as a timer each would cost too much."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from threading import TIMEOUT_MAX, Condition, RLock, Thread

__all__ = ["Alarm"]

log = logging.getLogger("unitwork")


class Alarm:
    """Rings, in a thread of its own, if its `with` block takes longer than *seconds*.

    Mostly it doesn't: to set it and to unset it is what has to cost next to nothing.
    """

    __slots__ = ("at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def ring(self) -> None:
        """Do what is to be done; what it raises is logged."""
        raise NotImplementedError

    def __enter__(self) -> None:
        self.at = at = time.monotonic() + self.seconds
        with _clock.lock:
            if at < _clock.wakes_at:
                _clock.wake()
            _clock.due.add(self)

    def __exit__(self, *exc_info: object) -> None:
        with _clock.lock:
            _clock.due.discard(self)


class _Clock:
    """Rings what is due, in a thread that starts when it is first needed."""

    def __init__(self) -> None:
        # Reentrant: a unit may end wherever the garbage collector finds its generator.
        self.lock = RLock()
        self.due: set[Alarm] = set()
        self.wakes_at = float("inf")
        self._woken = Condition(self.lock)
        self._thread: Thread | None = None

    def wake(self) -> None:
        """Look again which alarm is the next. The lock is held."""
        self._woken.notify()
        if self._thread is None:
            thread = Thread(target=self._run, name="unitwork-alarm", daemon=True)
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        try:
            while True:
                for alarm in self._wait():
                    self._ring(alarm)
                    del alarm  # or it would be kept until the next one rings
        finally:  # whatever has ended it, the next alarm starts another
            with self.lock:
                self._thread, self.wakes_at = None, float("inf")

    def _ring(self, alarm: Alarm) -> None:
        try:
            alarm.ring()
        except Exception:  # the others still need this thread
            log.exception("what an alarm had to do has failed")

    def _wait(self) -> Iterator[Alarm]:
        """Yield those that have become due, and keep none of them."""
        with self.lock:
            now = time.monotonic()
            self.wakes_at = min((x.at for x in list(self.due)), default=float("inf"))
            if self.wakes_at > now:
                self._woken.wait(min(self.wakes_at - now, TIMEOUT_MAX))
            self.wakes_at = float("-inf")
            now = time.monotonic()
            due = [alarm for alarm in list(self.due) if alarm.at <= now]
            self.due.difference_update(due)
        while due:
            yield due.pop(0)


_clock = _Clock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_clock.__init__)  # type: ignore[misc]  # a new lock: nobody else is left to free it
