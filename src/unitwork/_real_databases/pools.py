"""The pools of real databases of this process: one for each engine."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from threading import Lock
from typing import TypeAlias

from sqlalchemy import Engine

from .._concurrency.fork import renew_after_fork
from .._session.database_core import DatabaseCore
from .._unit.database_base import DatabaseBase
from ..errors import UsageError
from .real_databases import RealDatabases, engine_of
from .schema import SchemaSource

__all__ = ["Schemas", "close_pools", "real_databases_for"]

Schemas: TypeAlias = "SchemaSource | Mapping[object, SchemaSource]"

_NO_SCHEMA = (
    "there is no schema for the real databases of {name!r}: what is in them? Give "
    "sandbox(..., real=True, schema=Base.metadata), or define the fixture "
    "`unitwork_schema`"
)

_pools: dict[Engine, RealDatabases] = {}
_lock = renew_after_fork(Lock())


def real_databases_for(
    source: DatabaseBase | DatabaseCore | Engine,
    schemas: Schemas,
    key: str | None = None,
) -> RealDatabases:
    """The pool of the real databases in place of *source*, made when first needed."""
    name = "default" if isinstance(source, Engine) else source.name
    if isinstance(source, DatabaseCore):
        source = source.own_factory.engine
    engine = engine_of(source)
    with _lock:
        found = _pools.get(engine)
        if found is None:
            schema = _schema_for(name, schemas)
            found = _pools[engine] = RealDatabases(engine, schema, key=key)
        return found


def _schema_for(name: str, schemas: Schemas) -> SchemaSource:
    found: SchemaSource
    if isinstance(schemas, Mapping):
        by_name = {getattr(key, "name", key): each for key, each in schemas.items()}
        found = by_name.get(name)
    else:
        found = schemas
    if found is None:
        raise UsageError(_NO_SCHEMA.format(name=name))
    return found


def close_pools() -> None:
    """Remove all databases that are not to be kept. They can be made again."""
    with _lock:
        while _pools:
            _pools.popitem()[1].close()


atexit.register(close_pools)
