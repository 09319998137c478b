"""Time limits for blocks of code, all watched by one thread.

A `threading.Timer` for each would start a thread for each.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from threading import TIMEOUT_MAX, Condition, RLock, Thread

__all__ = ["Scheduler", "Watchdog", "scheduler"]

log = logging.getLogger("unitwork")


class Watchdog:
    """Calls `expired()`, in another thread, if its `with` block exceeds *seconds*.

    Few blocks do, so entering and leaving one is what has to be cheap.
    """

    __slots__ = ("at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def expired(self) -> Callable[[], object] | None:
        """To be overridden, without I/O; an exception that it raises is logged.

        What it returns is called afterwards, when nothing is locked any more.
        """
        raise NotImplementedError

    def __enter__(self) -> None:
        self.at = time.monotonic() + self.seconds
        scheduler.add(self)

    def __exit__(self, *exc_info: object) -> None:
        with scheduler.lock:
            self.at = float("inf")
            scheduler.due.discard(self)


class Scheduler:
    """Expires what is due, in a thread that is started by the first watchdog."""

    def __init__(self) -> None:
        # Reentrant: a garbage-collected generator may end its unit inside any call.
        self.lock = RLock()
        self.due: set[Watchdog] = set()
        self.wakes_at = float("inf")
        self._woken = Condition(self.lock)
        self.thread: Thread | None = None

    def add(self, watchdog: Watchdog) -> None:
        """Watch it. The lock is taken only if the thread has to be woken for it.

        The thread reads `due` after `wakes_at` is set to infinity: what it overlooks
        there finds that, and waits for the lock.
        """
        self.due.add(watchdog)
        if watchdog.at < self.wakes_at:
            try:
                with self.lock:
                    if watchdog.at < self.wakes_at:
                        self._wake()
            except BaseException:  # no thread could be started
                self.due.discard(watchdog)
                raise

    def _wake(self) -> None:
        """Let the thread find the next one to expire. The caller holds the lock."""
        self._woken.notify()
        if self.thread is None:
            thread = Thread(target=self._run, name="unitwork-watchdog", daemon=True)
            thread.start()
            self.thread = thread

    def _run(self) -> None:
        try:
            while True:
                for watchdog in self._wait():
                    self._expire(watchdog)
                    del watchdog  # or it would be kept until the next one expires
        finally:  # however it has ended, the next watchdog starts another
            with self.lock:
                self.thread, self.wakes_at = None, float("inf")

    def _expire(self, watchdog: Watchdog) -> None:
        try:
            call = None
            with self.lock:  # its block may be left at this very moment
                if watchdog.at < float("inf"):
                    call = watchdog.expired()
            if call is not None:
                call()
        except BaseException:  # the others still need this thread
            log.exception("a watchdog failed")

    def _wait(self) -> Iterator[Watchdog]:
        """Wait for the next ones to expire; yield them, without keeping references."""
        with self.lock:
            now = time.monotonic()
            self.wakes_at = float("inf")
            self.wakes_at = min((x.at for x in list(self.due)), default=float("inf"))
            if self.wakes_at > now:
                self._woken.wait(min(self.wakes_at - now, TIMEOUT_MAX))
            self.wakes_at = float("-inf")
            now = time.monotonic()
            due = [each for each in list(self.due) if each.at <= now]
            self.due.difference_update(due)
        while due:
            yield due.pop(0)


scheduler = Scheduler()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=scheduler.__init__)  # type: ignore[misc]  # a new lock: the thread that held it does not exist in the child
