"""What a middleware may be given as its database, and the database that it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import Engine, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from ._redaction import described
from .async_database import AsyncDatabase
from .database import Database
from .errors import UsageError

__all__ = ["database_of"]

AnyDatabase: TypeAlias = Database[Any] | AsyncDatabase[Any]

if TYPE_CHECKING:  # the async ones need greenlet
    from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

    SyncSource: TypeAlias = Engine | sessionmaker[Any]
    AsyncSource: TypeAlias = AsyncEngine | async_sessionmaker[Any]
    Source: TypeAlias = AnyDatabase | str | URL | SyncSource | AsyncSource

_GIVE = (
    "give a Database or an AsyncDatabase, or a sessionmaker, an engine or a URL, or "
    "several"
)
_KEPT_AS = "unitwork_database"


def database_of(given: object) -> AnyDatabase:
    """Return the database that is *given*, or make it of what is given.

    The same engine or sessionmaker leads to the same database each time.
    """
    if isinstance(given, Database | AsyncDatabase):
        return given
    if isinstance(given, str | URL):
        return _of_url(given)
    if _is_sessionmaker(given) or isinstance(_sync_engine(given), Engine):
        return _of_object(given)
    raise UsageError(f"db is {described(given)}; {_remedy_for(given)}")


def _of_url(given: str | URL) -> AnyDatabase:
    """Make one of the flavour of the driver; psycopg, which is both, is sync here."""
    try:
        is_async = make_url(given).get_dialect().is_async
    except (ArgumentError, NoSuchModuleError, ValueError):
        is_async = False  # it says what is wrong
    return AsyncDatabase(given) if is_async else Database(given)


def _of_object(given: Any) -> AnyDatabase:
    is_async = _sync_engine(given) is not given
    if _is_sessionmaker(given):
        is_async = not isinstance(given, sessionmaker)
    # An `AsyncEngine` has slots; its own engine has none.
    attributes = vars(_sync_engine(given))
    kind: Any = AsyncDatabase if is_async else Database
    found = attributes.get(_KEPT_AS)
    if not isinstance(found, kind):
        attributes[_KEPT_AS] = found = kind(given)
    return found  # type: ignore[no-any-return]  # of this kind


def _is_sessionmaker(given: object) -> bool:
    return isinstance(given, sessionmaker) or (
        hasattr(given, "kw") and hasattr(given, "class_")
    )


def _sync_engine(given: object) -> object:
    return getattr(given, "sync_engine", given)


def _remedy_for(given: object) -> str:
    if isinstance(getattr(given, "sync_session", given), Session):
        return "a session serves one request: give the sessionmaker that makes it"
    if isinstance(given, scoped_session) or hasattr(given, "registry"):
        return "give the sessionmaker that is in it: each request has its own session"
    if isinstance(given, type):
        return f"{_GIVE}, and not a class"
    if callable(given):
        return (
            "give the engine or the sessionmaker itself; if it is known later only, "
            "AsyncDatabase(function) or Database(function), which call it"
        )
    return _GIVE
