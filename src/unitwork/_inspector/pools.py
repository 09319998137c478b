"""The pools of a database, and their connections: how many, and how many may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import Engine
from sqlalchemy.engine import Dialect
from sqlalchemy.pool import QueuePool

from .._driver.sqlalchemy_internals import max_overflow
from .._engine.create import capacity
from .._session.database_core import DatabaseCore
from .live_units import OpenUnit
from .phase import WAITING, is_waiting

__all__ = ["NamedPool", "describe_pools", "names_of_pools", "pools_of"]


class NamedPool(NamedTuple):
    """One pool; that of a replica is *numbered*, from 1."""

    database: DatabaseCore
    engine: Engine
    number: int

    @property
    def name(self) -> str:
        name = self.database.name
        return f"{name}, replica {self.number}" if self.number else name


def pools_of(databases: Iterable[DatabaseCore]) -> list[NamedPool]:
    """The pools of *databases* and their replicas, as far as they are known."""
    return [pool for each in databases for pool in _pools_of(each)]


def _pools_of(database: DatabaseCore) -> Iterator[NamedPool]:
    engine = database.known_engine
    if engine is not None:  # else a callable gives it, which nothing has called yet
        yield NamedPool(database, engine, 0)
    if database.replicas is not None:
        for number, replica in enumerate(database.replicas.known_engines, 1):
            yield NamedPool(database, replica, number)


def names_of_pools(pools: Iterable[NamedPool]) -> dict[Dialect, str]:
    """The names of *pools* by their dialects, of which each has its own."""
    return {each.engine.dialect: each.name for each in pools}


def describe_pools(
    pools: Iterable[NamedPool], units: list[OpenUnit]
) -> list[dict[str, Any]]:
    """The *pools* as JSON; *units* are those that are open. No I/O.

    `limit` and `size` are `None` where there is none, as of a `NullPool`.
    """
    return [_describe(each, units) for each in pools]


def _describe(pool: NamedPool, units: list[OpenUnit]) -> dict[str, Any]:
    engine, name = pool.engine, pool.name
    queue = engine.pool if isinstance(engine.pool, QueuePool) else None
    return {
        "name": name,
        "dialect": engine.dialect.name,
        "driver": engine.dialect.driver,
        "kind": type(engine.pool).__name__,
        "size": None if queue is None else queue.size(),
        "overflow": None if queue is None else max_overflow(queue),
        "limit": capacity(engine),
        "in_use": _held(name, units) if queue is None else queue.checkedout(),
        "idle": 0 if queue is None else queue.checkedin(),
        "waiting": _waiting(pool, units),
    }


def _held(name: str, units: list[OpenUnit]) -> int:
    return sum(each.pool == name for unit in units for each in unit.held)


def _waiting(pool: NamedPool, units: list[OpenUnit]) -> int:
    name = pool.database.name
    seen = sum(
        is_waiting(session) and _awaited(each, name) == pool.name
        for each in units
        if each.phase == WAITING
        for session in list(each.unit.sessions)
        if session.name == name
    )
    return seen if pool.number else max(seen, pool.database.pool_status().waiting)


def _awaited(each: OpenUnit, database: str) -> str:
    """The pool of which a unit waits for a connection; that of the primary in doubt."""
    report = each.unit.report
    return database if report is None else report.waits_for.get(database, database)
