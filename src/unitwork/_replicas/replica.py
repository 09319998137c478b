"""One replica, and what is known of its state."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from .._driver.gtids import LogPosition
from .._driver.wal_position import WalPosition
from .._engine.address import address_of
from .replica_state import STOPPED, ReplicaState, Run

__all__ = ["Replica", "ReplicaStatus"]

log = logging.getLogger("unitwork")

_ASK_EVERY = 1.0  # seconds, while units use it
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 15.0  # seconds until it is looked at again
_CHECK_LASTS = 30.0  # seconds after which a check without an end is given up


class ReplicaStatus(NamedTuple):
    """The state of a replica at one moment.

    *address*: its driver, host, port and database. *usable*: whether units read from
    it; if not, *reason* says why. *lag*: by how many seconds it was behind when it was
    last asked, `None` if it was never, or can't say. *checked_out*: how many
    connections of its pool are in use. *name*: that of its pool, in events and metrics.

    .. versionadded:: 0.2
    """

    address: str
    usable: bool
    reason: str
    lag: float | None
    checked_out: int
    name: str


class Replica:
    """One replica of a database. Safe to use from several threads: all is advice.

    Whether it may serve a unit is found out each time that matters.
    """

    __slots__ = (
        "_check_at",
        "_checking_until",
        "_complete_until",
        "_failures",
        "asked_at",
        "engine",
        "is_unreachable",
        "lag",
        "name",
        "position",
        "reason",
        "run",
    )

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        """That of its pool: "default, replica 1"."""
        self.reason = ""
        """Why it is not used; empty if it is."""
        self.is_unreachable = False
        """Whether connecting has failed, and not only its state is bad."""
        self.lag: float | None = None
        self.position: LogPosition | None = None
        """Up to where it had replayed at least, when it was last asked."""
        self.run: Run | None = None
        """Of its server, on PostgreSQL, and the history that it has followed."""
        self.asked_at = -_ASK_EVERY
        self._complete_until = -STOPPED
        """Until when it is known to have replayed all, by `time.monotonic()`."""
        self._failures = 0
        self._check_at = 0.0
        self._checking_until = 0.0

    @property
    def usable(self) -> bool:
        return not self.reason

    @property
    def in_use(self) -> int:
        """How many connections of its pool are in use, where the pool knows."""
        pool = self.engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0

    @property
    def status(self) -> ReplicaStatus:
        return ReplicaStatus(
            address=address_of(self.engine.url),
            usable=self.usable,
            reason=self.reason,
            lag=self.lag,
            checked_out=self.in_use,
            name=self.name,
        )

    @property
    def is_due(self) -> bool:
        """Whether the next unit is to ask for its state, though it need not."""
        return time.monotonic() - self.asked_at > _ASK_EVERY

    def record(self, state: ReplicaState | None) -> ReplicaState | None:
        """Record the *state*; return it with the lag that follows from earlier ones.

        What replays nothing lags no further behind than by the time since it was seen
        to replay, and by what it lagged then.
        """
        self.asked_at = now = time.monotonic()
        if state is None:
            return None
        if state.lag == STOPPED:
            state = state._replace(lag=now - self._complete_until)
        elif state.lag is not None:
            self._complete_until = now - state.lag
        self.lag, self.position = state.lag, state.position
        self.run = state.run
        return state

    def may_reach(self, needed: LogPosition) -> bool:
        """Whether *needed* is known to be on its history, or before that."""
        run = self.run
        if run is None or not isinstance(needed, WalPosition):
            return False
        return run.system == needed.system and run.timeline >= needed.timeline

    def has_left(self, needed: LogPosition) -> bool:
        """Whether it was on another history than *needed* when it was last asked.

        That may have changed since, so not if it is to be asked again.
        """
        is_known = self.run is not None and isinstance(needed, WalPosition)
        return is_known and not self.may_reach(needed) and not self.is_due

    def raised(self, error: BaseException) -> None:
        """Use it no more, as connecting to it or using it has raised *error*."""
        cause = getattr(error, "orig", None) or error
        self.failed(f"{type(cause).__name__}: {' '.join(str(cause).split())}")
        self.is_unreachable = True

    def failed(self, reason: str) -> None:
        """Use it no more until a check finds it well."""
        self.is_unreachable = False
        if not self.reason:
            where = address_of(self.engine.url)
            log.warning("replica %s is not used: %s", where, reason)
        wait = min(_FIRST_WAIT * 2.0**self._failures, _LONGEST_WAIT)
        self._failures = min(self._failures + 1, 10)
        self._check_at, self.reason = time.monotonic() + wait, reason

    def recovered(self) -> None:
        if self.reason:
            log.info("replica %s is used again", address_of(self.engine.url))
        self.reason, self._failures = "", 0

    # Looking at it again

    def take_check(self) -> bool:
        """Whether the caller is to check it now; counts as the beginning of that."""
        now = time.monotonic()
        if self.usable or now < self._check_at or now < self._checking_until:
            return False
        self._checking_until = now + _CHECK_LASTS
        return True

    def check_ended(self) -> None:
        self._checking_until = 0.0

    def forget_parent(self) -> None:
        self._checking_until = 0.0
