"""The arguments of a database: its settings, and its replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol

from sqlalchemy.engine import URL

from .._engine.create import open_engine, sync_engine
from .._redaction import described
from .._replicas.replica_set import ReplicaSet, with_connect_timeout
from ..errors import UsageError
from ..settings import DatabaseSettings

__all__ = ["checked_settings", "replicas_of"]


def checked_settings(
    settings: DatabaseSettings | None, engine_options: Mapping[str, Any]
) -> DatabaseSettings:
    """The settings, of which none stands among the options of the engine."""
    for field in fields(DatabaseSettings):
        if field.name in engine_options:
            raise UsageError(
                f"{field.name} is a setting of unitwork, and no option of the engine: "
                f"write settings=DatabaseSettings({field.name}=...)"
            )
    if not isinstance(settings, DatabaseSettings | None):
        raise UsageError(
            f"settings is {described(settings)}; write settings=DatabaseSettings(...)"
        )
    return settings or DatabaseSettings()


class _Database(Protocol):
    name: str
    is_async: bool
    settings: DatabaseSettings


def replicas_of(
    given: object, database: _Database, engine_options: Mapping[str, Any]
) -> ReplicaSet | None:
    """The replicas *given*: URLs and engines, or a callable that returns engines.

    Those given as URLs get the *engine_options* of the primary. Raises `UsageError`.
    """
    if given is None or (isinstance(given, list | tuple) and not given):
        return None
    settings = database.settings
    options: dict[str, Any] = {
        "database": database.name,
        "is_async": database.is_async,
        "max_lag": settings.replica_max_lag,
        "wait": settings.replica_wait,
        "fallback": settings.replica_fallback,
        "transaction_pooler": settings.transaction_pooler,
    }
    if callable(given):
        return ReplicaSet(given, **options)
    if not isinstance(given, list | tuple):
        raise UsageError(
            f"replicas is {described(given)}; give a list of URLs or engines, or a "
            "callable that returns a list of engines"
        )
    engines, own = [], []
    for each in given:
        engine: Any = each
        if isinstance(each, str | URL):
            engine = open_engine(
                each,
                is_async=database.is_async,
                sqlite_defaults=settings.sqlite_defaults,
                options=with_connect_timeout(each, dict(engine_options)),
            )
            own.append(sync_engine(engine))
        engines.append(engine)
    return ReplicaSet(engines, own=own, **options)
