"""What sessions are bound to: engines, or a connection; and other ones in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

__all__ = [
    "binds_connection",
    "engines_of",
    "rebound_binds",
    "redirected_class",
    "sync_binds",
]


def engines_of(given: Any) -> list[Engine]:
    """All engines that the sessions may use, the main one first."""
    binds = [getattr(bind, "sync_connection", bind) for bind in _binds_of(given)]
    binds = [b.engine if isinstance(b, Connection) else b for b in binds]
    found = [getattr(bind, "sync_engine", bind) for bind in binds]
    return [engine for engine in found if isinstance(engine, Engine)]


def binds_connection(given: Any) -> bool:
    """Whether sessions use a connection that *given* has, and not one of a pool."""
    binds = [getattr(bind, "sync_connection", bind) for bind in _binds_of(given)]
    return any(isinstance(bind, Connection) for bind in binds)


def _binds_of(given: Any) -> list[Any]:
    if not hasattr(given, "kw"):
        return [given]
    return [given.kw.get("bind"), *(given.kw.get("binds") or {}).values()]


def rebound_binds(
    options: Mapping[str, Any], replace: Callable[[Engine], Engine]
) -> dict[str, Any]:
    """The `bind` and `binds` of a session's *options*, on the engines of *replace*."""

    def rebound(bind: Any) -> Any:
        found = engines_of(bind)
        if not found:
            return bind
        engine = replace(found[0])
        if not hasattr(bind, "sync_engine"):
            return engine
        from sqlalchemy.ext.asyncio import AsyncEngine  # needs greenlet

        return AsyncEngine(engine)

    found = {"bind": rebound(options.get("bind"))}
    binds = options.get("binds")
    if binds:
        found["binds"] = {key: rebound(bind) for key, bind in binds.items()}
    return found


def sync_binds(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same `bind` and `binds`, for a sync session."""
    bind = options.get("bind")
    found = {"bind": getattr(bind, "sync_engine", bind)}
    if binds := options.get("binds"):
        found["binds"] = {
            key: getattr(each, "sync_engine", each) for key, each in binds.items()
        }
    return found


def redirected_class(
    session_class: type[Session], replace: Callable[[Engine], Engine]
) -> type[Session]:
    """Derive a class whose sessions connect with the engines of *replace*."""

    def get_bind(self: Session, *args: Any, **options: Any) -> Engine:
        return replace(session_class.get_bind(self, *args, **options).engine)

    return type(session_class.__name__, (session_class,), {"get_bind": get_bind})
