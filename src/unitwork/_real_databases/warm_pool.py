"""Databases made ahead, in a thread, so that tests need not wait for them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread

from .._concurrency.fork import renew_after_fork
from ..errors import UsageError
from .provisioning import ProvisionedDatabase, Provisioner

__all__ = ["WarmPool"]

log = logging.getLogger("unitwork")

_LONGEST_WAIT = 120.0  # seconds, for a database that is being made


class WarmPool:
    """Has as many new databases ready as `Provisioner.ahead`, if they are made in time.

    Safe to use from several threads. All that *open_provisioner* returns is used in the
    thread of the pool.
    """

    def __init__(self, open_provisioner: Callable[[], Provisioner]) -> None:
        self._open_provisioner = open_provisioner
        self._ahead = 0
        self._changed = renew_after_fork(Condition())
        self._ready: deque[ProvisionedDatabase] = deque()
        self._used: deque[ProvisionedDatabase] = deque()
        self._lent: list[ProvisionedDatabase] = []
        self._to_keep: deque[ProvisionedDatabase] = deque()
        self._wanted = 0
        self._taken = 0
        self._failure: BaseException | None = None
        self._closing = False
        self._thread = Thread(target=self._work, name="unitwork-databases", daemon=True)
        self._thread.start()

    def take(self) -> ProvisionedDatabase:
        """Return a new database; wait until it has been made.

        Raises what its making has raised.
        """
        with self._changed:
            self._wanted += 1
            self._changed.notify_all()
            try:
                ended = self._changed.wait_for(
                    lambda: self._ready or self._failure or self._closing, _LONGEST_WAIT
                )
            finally:
                self._wanted -= 1
            if self._ready:
                database = self._ready.popleft()
                self._lent.append(database)
                self._taken += 1
                self._changed.notify_all()
                return database
            if self._failure is not None:
                raise self._failure
        raise UsageError(
            "the databases of the tests are closed"
            if ended
            else f"no database was made within {_LONGEST_WAIT:g} seconds"
        )

    def give_back(self, database: ProvisionedDatabase, *, keep: bool = False) -> None:
        """Have *database* removed, or leave it to the user."""
        with self._changed:
            self._lent.remove(database)
            (self._to_keep if keep else self._used).append(database)
            self._changed.notify_all()

    def close(self) -> None:
        """Remove all databases, those in use included, but for those to keep."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    # In the thread

    def _work(self) -> None:
        try:
            provisioner = self._open_provisioner()
        except BaseException as error:
            self._failed(error)
            return
        try:
            provisioner.prepare()
            self._ahead = provisioner.ahead
            while self._step(provisioner):
                pass
        except BaseException as error:
            self._failed(error)
        finally:
            self._remove_all(provisioner)

    def _step(self, provisioner: Provisioner) -> bool:
        """Do what is most urgent; return `False` once the pool is closing."""
        with self._changed:
            self._changed.wait_for(self._has_work)
            if self._closing:
                return False
            kept = self._to_keep.popleft() if self._to_keep else None
            used = None
            if kept is None and (
                provisioner.recycles or self._ready or not self._is_short
            ):
                used = self._used.popleft() if self._used else None
        if kept is not None:
            provisioner.keep(kept)
        elif used is None:
            self._add(provisioner.make())
        elif provisioner.recycle(used):
            self._add(used)
        return True

    @property
    def _is_short(self) -> bool:
        # A process that takes one for all of its tests needs no other.
        ahead = min(self._ahead, max(1, self._taken - 1))
        return len(self._ready) < max(ahead, self._wanted)

    def _has_work(self) -> bool:
        return self._closing or self._is_short or bool(self._used or self._to_keep)

    def _add(self, database: ProvisionedDatabase) -> None:
        with self._changed:
            self._ready.append(database)
            self._changed.notify_all()

    def _failed(self, error: BaseException) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _remove_all(self, provisioner: Provisioner) -> None:
        for kept in self._to_keep:
            self._try(lambda kept=kept: provisioner.keep(kept))  # type: ignore[misc]  # a loop's
        for database in (*self._ready, *self._used, *self._lent):
            self._try(lambda database=database: provisioner.remove(database))  # type: ignore[misc]  # a loop's
        self._try(provisioner.close)

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            log.warning("a database of the tests could not be removed", exc_info=True)
