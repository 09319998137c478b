"""How many connections a database has, and may have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from .._engine.create import capacity
from .._engine.pool_events import connection_counts

__all__ = ["PoolCounts", "PoolLimits", "PoolStatus", "counts_of", "limits_of"]


class PoolStatus(NamedTuple):
    """The connections of a database at one moment.

    *size*: how many the pool may hold, overflow included, `None` without a limit;
    *checked_out*: how many are in use; *idle*: how many are not;
    *waiting*: how many units wait at the admission gate of a sync database.

    .. versionadded:: 0.1
    """

    size: int | None
    checked_out: int
    idle: int
    waiting: int


class PoolCounts(NamedTuple):
    """How many connections are open, and how many of them are in use."""

    opened: int
    used: int


class PoolLimits(NamedTuple):
    """How many connections pools may hold, `None` without a limit; and idle ones."""

    most: int | None
    most_idle: int


def counts_of(engines: Iterable[Engine]) -> PoolCounts:
    """Those of all *engines*, of whatever kind their pools are. No I/O."""
    counts = [connection_counts(engine) for engine in engines]
    return PoolCounts(sum(each for each, _ in counts), sum(each for _, each in counts))


def limits_of(engines: Iterable[Engine]) -> PoolLimits | None:
    """Those of *engines*; `None` if they have no pool with limits."""
    found = [
        PoolLimits(capacity(engine), engine.pool.size())
        for engine in engines
        if isinstance(engine.pool, QueuePool)
    ]
    if not found:
        return None
    most = [each.most for each in found if each.most is not None]
    idle = sum(each.most_idle for each in found)
    return PoolLimits(sum(most) if len(most) == len(found) else None, idle)
