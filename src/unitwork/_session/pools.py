"""The pools of a database, each with the name that metrics and events have for it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from sqlalchemy import Engine

from .._engine.pool_watch import watch_pool
from .._observing.registry import Observers
from .._replicas.replica_set import ReplicaSet

__all__ = ["pools_of", "watch_pools"]


class _Database(Protocol):
    name: str
    observers: Observers
    replicas: ReplicaSet | None

    @property
    def known_engines(self) -> Collection[Engine]: ...


def pools_of(database: _Database) -> Iterator[tuple[str, Collection[Engine]]]:
    """The engines of *database*, by its name; and that of each replica, by its own."""
    yield database.name, database.known_engines
    if database.replicas is not None:
        for replica in database.replicas.known:
            yield replica.name, [replica.engine]


def watch_pools(database: _Database) -> None:
    """Let the observers have the events of the pools that are known, if there are any.

    A pool that is the primary's as well has the name of that.
    """
    if database.observers.audience is None:
        return
    for name, engines in reversed(list(pools_of(database))):
        for engine in engines:
            watch_pool(engine, database.name, name, database.observers)
