"""The connections of a pool: how many there are, and how many there may be."""

from __future__ import annotations

from typing import Any

from sqlalchemy.pool import QueuePool

from .._engine.create import capacity
from .._engine.sqlalchemy_internals import max_overflow
from .._session.database_core import DatabaseCore
from .live import OpenUnit

__all__ = ["pool_of"]


def pool_of(database: DatabaseCore, units: list[OpenUnit]) -> dict[str, Any]:
    """The pool of *database* as JSON; *units* are those that are open. No I/O.

    `limit` and `size` are `None` where there is none, as of a `NullPool`.
    """
    engine = database.known_engine
    if engine is None:  # a callable gives it, which nothing has called yet
        return {"name": database.name, "dialect": "", "driver": "", "kind": ""}
    pool, status = engine.pool, database.pool_status()
    queue = pool if isinstance(pool, QueuePool) else None
    held = sum(h.database == database.name for each in units for h in each.held)
    waiting = sum(each.phase == "waiting for a connection" for each in units)
    return {
        "name": database.name,
        "dialect": engine.dialect.name,
        "driver": engine.dialect.driver,
        "kind": type(pool).__name__,
        "size": None if queue is None else queue.size(),
        "overflow": None if queue is None else max_overflow(queue),
        "limit": capacity(engine),
        "in_use": held if queue is None else queue.checkedout(),
        "idle": status.idle,
        "waiting": max(waiting, status.waiting),
    }
