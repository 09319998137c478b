"""What happens to replicas: paused, far behind, killed, promoted; then well again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread

from servers.postgresql_replication import Replication

FAULTS = ("pause", "lag", "kill", "promote")


class Faults:
    """One fault of a *kind* after the other, each of one replica."""

    def __init__(
        self, replication: Replication, kinds: Sequence[str], *, seed: int
    ) -> None:
        self._replication = replication
        self._kinds = kinds
        self._random = random.Random(seed)
        self._over = Event()
        self.count = 0

    @contextmanager
    def every(self, seconds: float) -> Iterator[None]:
        """Make one every so many *seconds*, in a thread; it lasts half as long."""
        thread = Thread(target=self._make, args=(seconds,))
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _make(self, seconds: float) -> None:
        while self._kinds and not self._over.wait(seconds / 2):
            kind = self._kinds[self.count % len(self._kinds)]
            i = self._random.randrange(len(self._replication.replica_urls))
            self._begin(kind, i)
            self.count += 1
            self._over.wait(seconds / 2)
            self._end(kind, i)

    def _begin(self, kind: str, i: int) -> None:
        if kind == "pause":
            self._replication.pause(i)
        elif kind == "lag":
            self._replication.set_delay(i, 500)
        elif kind == "kill":
            self._replication.kill(i)
        else:  # the others go on following the primary
            self._replication.servers[i].execute("SELECT pg_promote()")

    def _end(self, kind: str, i: int) -> None:
        if kind == "pause":
            self._replication.resume(i)
        elif kind == "lag":
            self._replication.set_delay(i, 0)
        elif kind == "kill":
            self._replication.start(i)
        else:
            self._replication.rejoin()
