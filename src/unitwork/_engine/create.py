"""Creates engines by their URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import AssertionPool, QueuePool, StaticPool

from .._driver.sqlalchemy_internals import max_overflow
from .._redaction import secrets_in, without
from ..errors import UsageError
from . import sqlite, sqlite_units
from .drivers import (
    ASYNC_DRIVERS,
    missing_driver,
    remedy_for_name,
    two_slashes,
)
from .hosts import connect_to_first, hosts_of

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Dialect
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["capacity", "is_shared_by_design", "open_engine", "sync_engine"]


def open_engine(
    given: str | URL,
    *,
    is_async: bool,
    sqlite_defaults: bool,
    options: Mapping[str, Any],
) -> Engine | AsyncEngine:
    """Create the engine for a URL; raise `UsageError` if the URL can't be used."""
    url = _checked(given, is_async)
    if url.get_backend_name() != "sqlite":
        url, hosts = hosts_of(url)
        engine = _create(url, is_async, options)
        if hosts:
            connect_to_first(sync_engine(engine), hosts)
        return engine
    if in_memory := sqlite.in_memory(url):
        url, options = sqlite.shared_in_memory(url, is_async, options)
    engine = _create(url, is_async, options)
    if in_memory:
        sqlite.keep_in_memory(sync_engine(engine))
    if sqlite_defaults:
        sqlite_units.listen(sync_engine(engine), wal=not in_memory)
    elif _commits_at_once(options):
        raise UsageError(
            "connect_args has autocommit=True: SQLite would store each statement at "
            "once, and could roll nothing back. Leave it out"
        )
    return engine


def _commits_at_once(options: Mapping[str, Any]) -> bool:
    return (options.get("connect_args") or {}).get("autocommit") is True


def sync_engine(engine: Engine | AsyncEngine) -> Engine:
    """The engine under an `AsyncEngine`: the one that has events."""
    return engine if isinstance(engine, Engine) else engine.sync_engine


def capacity(engine: Engine) -> int | None:
    """How many connections the pool may open; `None` without a limit."""
    pool = engine.pool
    if is_shared_by_design(engine):
        return 1
    if not isinstance(pool, QueuePool):
        return None
    overflow = max_overflow(pool)
    return None if overflow < 0 else pool.size() + overflow


def is_shared_by_design(engine: Engine) -> bool:
    """Whether the pool has one connection at most, and does not wait for it."""
    if isinstance(engine.pool, StaticPool | AssertionPool):
        return True
    in_memory = engine.dialect.name == "sqlite" and sqlite.is_shared(engine.url)
    return in_memory and not isinstance(engine.pool, QueuePool)


def _create(
    url: URL, is_async: bool, options: Mapping[str, Any]
) -> Engine | AsyncEngine:
    try:
        if not is_async:
            return create_engine(url, **options)
        from sqlalchemy.ext.asyncio import create_async_engine  # needs greenlet

        return create_async_engine(url, **options)
    except ModuleNotFoundError as error:
        # Without its traceback, which would stand before the message.
        raise UsageError(missing_driver(url.drivername, error.name or "")) from None
    except (ArgumentError, TypeError, ValueError) as error:
        # Its text may have the URL in it; so it is not the cause of ours.
        message = without(_secrets(url, options), error)
        raise UsageError(f"the engine can't be created: {message}") from None


def _secrets(url: URL, options: Mapping[str, Any]) -> list[str]:
    given = [url.password] if url.password else []
    arguments = options.get("connect_args") or {}
    return [*given, *secrets_in(url.query), *secrets_in(arguments)]


def _checked(given: str | URL, is_async: bool) -> URL:
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        # Neither the URL nor the error is shown: where the password is is not known.
        raise UsageError(
            "the database URL can't be used: it can't be parsed (it is not shown, as "
            "it may have a password in it). Give dialect+driver://user:password@host:"
            "port/database, with a password that is quoted by urllib.parse.quote_plus()"
        ) from None
    try:
        dialect = _dialect(url, is_async)
    except NoSuchModuleError:
        raise UsageError(
            f"the database URL can't be used: SQLAlchemy knows no {url.drivername!r}"
            + remedy_for_name(url.drivername, is_async=is_async)
        ) from None
    if dialect.is_async is not is_async:
        raise UsageError(_wrong_flavour(url, is_async))
    if url.get_backend_name() == "sqlite" and url.host:
        raise UsageError(two_slashes(url.drivername))
    return url


def _dialect(url: URL, is_async: bool) -> type[Dialect]:
    """The dialect that an engine would use: that of psycopg is sync or async."""
    dialect = url.get_dialect()
    return dialect.get_async_dialect_cls(url) if is_async else dialect


def _wrong_flavour(url: URL, is_async: bool) -> str:
    shown = url.drivername  # of the rest, a part may be a password
    if is_async:
        fitting = ASYNC_DRIVERS.get(url.get_backend_name(), "one with an async driver")
        return f"AsyncDatabase needs an async driver, {shown!r} has none; use {fitting}"
    return f"{shown!r} names an async driver; use AsyncDatabase, or a sync driver"
