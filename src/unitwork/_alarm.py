"""An alarm clock: one for all, as a timer each would cost too much."""

from __future__ import annotations

import logging
import os
import time
from threading import Condition, Lock, Thread

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
            _clock.due.add(self)
            if at < _clock.wakes_at:
                _clock.wake()

    def __exit__(self, *exc_info: object) -> None:
        with _clock.lock:
            _clock.due.discard(self)


class _Clock:
    """Rings what is due, in a thread that starts when it is first needed."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.due: set[Alarm] = set()
        self.wakes_at = float("inf")
        self._woken = Condition(self.lock)
        self._thread: Thread | None = None

    def wake(self) -> None:
        """Look again which alarm is the next. The lock is held."""
        self._woken.notify()
        if self._thread is None:
            self._thread = Thread(target=self._run, name="unitwork-alarm", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            for alarm in self._wait():
                try:
                    alarm.ring()
                except Exception:  # the others still need this thread
                    log.exception("what an alarm had to do has failed")

    def _wait(self) -> list[Alarm]:
        with self.lock:
            now = time.monotonic()
            self.wakes_at = min((x.at for x in self.due), default=float("inf"))
            if self.wakes_at > now:
                never = self.wakes_at == float("inf")
                self._woken.wait(None if never else self.wakes_at - now)
            self.wakes_at = float("-inf")
            now = time.monotonic()
            due = [alarm for alarm in self.due if alarm.at <= now]
            self.due.difference_update(due)
            return due


_clock = _Clock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_clock.__init__)  # type: ignore[misc]  # a new lock: nobody else is left to free it
