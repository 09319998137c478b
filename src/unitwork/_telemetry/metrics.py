"""An observer that records metrics: of units, and of the pools of their databases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from threading import Lock

from opentelemetry.metrics import CallbackOptions, Meter, NoOpMeter, Observation
from sqlalchemy import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutOfSQLAlchemy

from .._classify.classification import classify
from .._concurrency.fork import forget_after_fork, renew_after_fork
from .._observing.pool_events import (
    ConnectionCheckedIn,
    ConnectionOpened,
    WaitEnded,
    WaitStarted,
)
from .._observing.unit_events import (
    CommitAnswered,
    ConnectionReturned,
    ConnectionTaken,
    HookFailed,
    OutcomeVerified,
    UnitEnded,
    UnitRetried,
)
from .._session.database_core import DatabaseCore
from .._session.pool_status import PoolLimits, counts_of, limits_of
from .._session.pools import pools_of
from ..errors import PoolTimeoutError
from .attributes import (
    Attributes,
    UnitKey,
    attempt_of,
    cause_of,
    connection_attributes,
    end_attributes,
    error_type,
    key_of,
    unit_attributes,
)
from .recordings import Telemetry

__all__ = ["Metrics"]

_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)
_POOL = "db.client.connection.pool.name"
_STATE = "db.client.connection.state"
_TIMEOUTS = (PoolTimeoutError, PoolTimeoutOfSQLAlchemy)


class Metrics(Telemetry):
    """Records the metrics of its *databases* with the instruments of *meter*."""

    def __init__(self, meter: Meter) -> None:
        self._lock = renew_after_fork(Lock())
        self._make_instruments(meter)
        self._observe(meter)
        self.records = not isinstance(meter, NoOpMeter)
        self.forget_parent()
        forget_after_fork(self)
        self.recorders = {
            UnitEnded: self._ended,
            ConnectionTaken: self._taken,
            ConnectionReturned: self._returned,
            CommitAnswered: self._answered,
            UnitRetried: self._retried,
            HookFailed: self._failed,
            OutcomeVerified: self._verified,
            WaitStarted: self._wait_started,
            WaitEnded: self._wait_ended,
            ConnectionOpened: self._opened,
            ConnectionCheckedIn: self._checked_in,
        }

    def forget_parent(self) -> None:
        self._pending: Counter[tuple[str, str]] = Counter()
        """By the names of the database and the pool."""
        self._holders: Counter[UnitKey] = Counter()
        self._held_by: dict[tuple[int, str], list[UnitKey]] = {}
        """By whom each connection was taken: the route may be found later."""

    def remove(self, database: DatabaseCore) -> None:
        super().remove(database)
        with self._lock:
            for pool in [pool for pool in self._pending if pool[0] == database.name]:
                del self._pending[pool]
            for key in [key for key in self._held_by if key[1] == database.name]:
                self._holders.subtract(self._held_by.pop(key))

    def _make_instruments(self, meter: Meter) -> None:
        """Create those that are recorded when something happens."""

        def histogram(name: str, what: str) -> Callable[[float, Attributes], None]:
            made = meter.create_histogram(
                name, "s", what, explicit_bucket_boundaries_advisory=_BUCKETS
            )
            return made.record

        def counter(name: str, unit: str, what: str) -> Callable[..., None]:
            return meter.create_counter(name, unit, what).add

        pool, unit = "db.client.connection.", "unitwork."
        self._wait_time = histogram(
            pool + "wait_time", "The time it took to obtain a connection."
        )
        self._create_time = histogram(
            pool + "create_time", "The time it took to open a connection."
        )
        self._use_time = histogram(
            pool + "use_time", "The time between borrowing and returning one."
        )
        self._timeouts = counter(
            pool + "timeouts", "{timeout}", "Waits that have timed out."
        )
        self._duration = histogram(unit + "unit.duration", "Duration of a unit.")
        self._held = histogram(
            unit + "connection.held", "How long a unit has held a connection."
        )
        self._idle = histogram(
            unit + "connection.idle_in_transaction", "For how much of that it idled."
        )
        self._commit = histogram(unit + "commit.duration", "Duration of COMMIT.")
        self._retries = counter(unit + "retries", "{retry}", "Retries of units.")
        self._hooks = counter(unit + "hook.failures", "{hook}", "Failed hooks.")
        self._verifications = counter(
            unit + "verifications", "{verification}", "Verified COMMITs."
        )

    def _observe(self, meter: Meter) -> None:
        """Create the instruments that are read when the metrics are collected."""
        for name, unit, callback in (
            ("db.client.connection.count", "{connection}", self._count),
            ("db.client.connection.max", "{connection}", self._max),
            ("db.client.connection.idle.max", "{connection}", self._idle_max),
            ("db.client.connection.idle.min", "{connection}", self._idle_min),
            ("db.client.connection.pending_requests", "{request}", self._waiting),
            ("unitwork.connection.holders", "{connection}", self._holding),
        ):
            meter.create_observable_up_down_counter(name, [callback], unit)

    # Units

    def _ended(self, event: UnitEnded) -> None:
        error, unit = event.error, event.unit
        known = None if error is None else error_type(error, event.sqlstate)
        attributes = end_attributes(
            key_of(unit), event.outcome, cause_of(event), attempt_of(unit), known
        )
        self._duration(event.duration, attributes)

    def _taken(self, event: ConnectionTaken) -> None:
        self._wait_time(event.waited, _of_pool(event.pool))
        holder = key_of(event.unit)
        key = event.unit.id, event.database
        with self._lock:
            self._holders[holder] += 1
            self._held_by.setdefault(key, []).append(holder)

    def _returned(self, event: ConnectionReturned) -> None:
        attributes = connection_attributes(key_of(event.unit), event.database)
        self._held(event.held, attributes)
        self._idle(event.idle, attributes)
        key = event.unit.id, event.database
        with self._lock:
            held_by = self._held_by.get(key)
            if held_by:
                self._holders[held_by.pop()] -= 1
            if not held_by:
                self._held_by.pop(key, None)

    def _answered(self, event: CommitAnswered) -> None:
        error = None if event.error is None else _type_of(event.error)
        self._commit(event.duration, _of_commit(event.database, error))

    def _retried(self, event: UnitRetried) -> None:
        error = {"error.type": _type_of(event.error)}
        self._retries(1, {**unit_attributes(key_of(event.unit)), **error})

    def _failed(self, event: HookFailed) -> None:
        self._hooks(1, unit_attributes(key_of(event.unit)))

    def _verified(self, event: OutcomeVerified) -> None:
        results = {True: "committed", False: "rolled_back", None: "unknown"}
        result = results[event.committed]
        attributes = {"unitwork.database": event.database, "unitwork.outcome": result}
        self._verifications(1, attributes)

    # Pools

    def _wait_started(self, event: WaitStarted) -> None:
        with self._lock:
            self._pending[event.database, event.pool] += 1

    def _wait_ended(self, event: WaitEnded) -> None:
        with self._lock:
            self._pending[event.database, event.pool] -= 1
        if isinstance(event.error, _TIMEOUTS):
            self._timeouts(1, _of_pool(event.pool))
        elif event.error is None and event.unit is None:  # else when it was taken
            self._wait_time(event.waited, _of_pool(event.pool))

    def _opened(self, event: ConnectionOpened) -> None:
        if event.duration is not None:
            self._create_time(event.duration, _of_pool(event.pool))

    def _checked_in(self, event: ConnectionCheckedIn) -> None:
        self._use_time(event.used, _of_pool(event.pool))

    # What is read

    def _count(self, options: CallbackOptions) -> Iterable[Observation]:
        for name, engines in self._pools():
            counts = counts_of(engines)
            pool = {_POOL: name}
            yield Observation(counts.used, {**pool, _STATE: "used"})
            yield Observation(counts.opened - counts.used, {**pool, _STATE: "idle"})

    def _max(self, options: CallbackOptions) -> Iterable[Observation]:
        for name, limits in self._limits():
            if limits.most is not None:
                yield Observation(limits.most, {_POOL: name})

    def _idle_max(self, options: CallbackOptions) -> Iterable[Observation]:
        for name, limits in self._limits():
            yield Observation(limits.most_idle, {_POOL: name})

    def _idle_min(self, options: CallbackOptions) -> Iterable[Observation]:
        """A pool of SQLAlchemy opens its connections on demand."""
        return [Observation(0, {_POOL: name}) for name, _ in self._limits()]

    def _limits(self) -> Iterator[tuple[str, PoolLimits]]:
        for name, engines in self._pools():
            if (limits := limits_of(engines)) is not None:
                yield name, limits

    def _pools(self) -> Iterator[tuple[str, Collection[Engine]]]:
        """Those of the databases, and of their replicas, each with its name."""
        for database in self.databases:
            yield from pools_of(database)

    def _waiting(self, options: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            pending = dict(self._pending)
        return [
            Observation(count, {_POOL: name}) for (_, name), count in pending.items()
        ]

    def _holding(self, options: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            holders = dict(self._holders)
        return [
            Observation(count, unit_attributes(key)) for key, count in holders.items()
        ]


@lru_cache(maxsize=64)
def _of_pool(name: str) -> Attributes:
    return {_POOL: name}


@lru_cache(maxsize=256)
def _of_commit(database: str, error: str | None) -> Attributes:
    found = {"unitwork.database": database}
    return found if error is None else {**found, "error.type": error}


def _type_of(error: BaseException) -> str:
    code = classify(error).code
    return error_type(error, None if code is None else str(code))
