"""`Database` and `AsyncDatabase`: the same thing, for `Session` and `AsyncSession`."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Unpack, overload

from sqlalchemy.orm import Session, sessionmaker
from typing_extensions import TypeVar, TypeVarTuple

from ._current import unit_of, unit_of_request
from ._source import PoolStatus, Source
from ._transaction import (
    AsyncTransaction,
    Nested,
    Transaction,
    awaitable,
    finished,
    tries_for,
)
from .errors import UsageError
from .options import NO_OPTIONS, BeginOptions, DatabaseSettings, TransactionOptions
from .retry import RetryPolicy

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

__all__ = ["AsyncDatabase", "Database", "PoolStatus"]


AsyncS = TypeVar("AsyncS", bound="AsyncSession", default="AsyncSession")
SyncS = TypeVar("SyncS", bound=Session, default=Session)
Args = TypeVarTuple("Args")
T = TypeVar("T")
M = TypeVar("M", bound=Callable[..., object])


def _injectable(method: M) -> M:
    """Hide *request* from FastAPI, which would take it for a query parameter."""
    self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    hiding: Any = method
    hiding.__signature__ = inspect.Signature([self])
    return method


def _given(options: BeginOptions, attempts: int | None = None) -> TransactionOptions:
    if unknown := options.keys() - BeginOptions.__annotations__.keys():
        raise UsageError(
            f"there is no option {', '.join(sorted(unknown))}; give one of "
            f"{', '.join(BeginOptions.__annotations__)}"
        )
    if attempts is None and not options:
        return NO_OPTIONS
    return TransactionOptions(**options, attempts=attempts)


class _Database:
    """What has no flavour."""

    _source: Source

    @property
    def name(self) -> str:
        """The name by which messages and `request.state` know this database."""
        return self._source.name

    @property
    def settings(self) -> DatabaseSettings:
        """The settings in force; frozen."""
        return self._source.settings

    def pool_status(self) -> PoolStatus:
        """Look at the connections: how many are in use, idle, waited for. No I/O."""
        return self._source.pool_status()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class AsyncDatabase(_Database, Generic[AsyncS]):
    """A database for `AsyncSession`; lives as long as the application.

    *source* is a URL, an `AsyncEngine`, an `async_sessionmaker`, or a callable that
    gives one of the latter two and is asked anew each time (late binding).
    *name* tells databases of one application apart. *session_class* and
    *session_options* go into each session, *settings* into unitwork, and other keywords
    to `create_async_engine()`: they need a URL.

    Does not connect. An engine that was opened by its URL is disposed of when the
    application shuts down; any other engine stays its owner's.
    Safe to use from several tasks, and from one event loop after the other; two loops
    at the same time need a database object each.
    Raises `UsageError` for a source that can't work, such as a sync driver.

    .. versionadded:: 0.1
    """

    @overload
    def __init__(
        self,
        source: str | URL | AsyncEngine | Callable[[], AsyncEngine],
        *,
        session_class: type[AsyncS],
        name: str = ...,
        session_options: Mapping[str, object] | None = ...,
        settings: DatabaseSettings | None = ...,
        **engine_options: object,
    ) -> None: ...
    @overload
    def __init__(
        self,
        source: async_sessionmaker[AsyncS] | Callable[[], async_sessionmaker[AsyncS]],
        *,
        name: str = ...,
        session_options: Mapping[str, object] | None = ...,
        settings: DatabaseSettings | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: AsyncDatabase[AsyncSession],
        source: str | URL | AsyncEngine | Callable[[], AsyncEngine],
        *,
        session_class: None = ...,
        name: str = ...,
        session_options: Mapping[str, object] | None = ...,
        settings: DatabaseSettings | None = ...,
        **engine_options: object,
    ) -> None: ...
    def __init__(
        self,
        source: object,
        *,
        name: str = "default",
        session_class: Any = None,
        session_options: Mapping[str, object] | None = None,
        settings: DatabaseSettings | None = None,
        **engine_options: object,
    ) -> None:
        self._source = Source(
            source,
            is_async=True,
            name=name,
            session_class=session_class,
            session_options=session_options,
            settings=settings,
            engine_options=engine_options,
        )

    @property
    def engine(self) -> AsyncEngine:
        """The engine, for what is not a unit of work: `create_all()`, inspection."""
        return self._source.async_engine

    @property
    def current(self) -> AsyncS:
        """The session of the unit of work around the caller, from anywhere below it.

        Raises `MissingSessionError` outside a unit, `SessionEndedError` after its end.
        """
        return unit_of(self._source)._lease(self._source).session  # type: ignore[return-value]  # the factory's class

    @_injectable
    async def session(self, request: object = None) -> AsyncS:
        """Give the session of the request: `Depends(db.session)`.

        In plain Starlette `await db.session(request)`. Doesn't connect: the first
        statement does. Raises as `current` does.
        """
        unit = unit_of_request(self._source, request)
        return unit._lease(self._source).session  # type: ignore[return-value]  # the factory's class

    def transaction(
        self, *, nested: Nested = "own", **options: Unpack[BeginOptions]
    ) -> AsyncTransaction[AsyncS]:
        """Open a unit of work: committed when the block ends, rolled back if it raises.

        Inside another unit *nested* says what it is to that: `"own"`, a transaction and
        connection of its own; `"join"`, the same session, committed by the unit around,
        which can't be committed any more if this block raises; `"savepoint"`, a
        savepoint in the same session. Where there is no unit around all three are one.
        *options* are those of `TransactionOptions` that a transaction begins with.

        Give each task its own block. Raises what COMMIT raises;
        `UnexpectedRollbackError` if an error was swallowed that had cost the work;
        `UsageError` if the unit around has begun without the *options*.
        """
        return AsyncTransaction(self._source, nested, _given(options))

    async def run(
        self,
        work: Callable[[AsyncS, Unpack[Args]], Awaitable[T]],
        *args: *Args,
        attempts: int = 1,
        retry: RetryPolicy | None = None,
        **options: Unpack[BeginOptions],
    ) -> T:
        """Call *work* with a session and *args* in a unit of its own; give its result.

        The unit is committed once *work* returns. If the database could not serialize
        it, or it came into a deadlock, all of that is done again, with a fresh session:
        *attempts* times at most, as *retry* says. Not if the outcome is unknown, nor
        after `side_effect_done()`; and inside a unit that is itself run again, only
        once. Raises what the last attempt raised, with a note of their number.
        """
        tries = tries_for(attempts, retry)
        given = _given(options, tries.attempts)
        while True:
            block = AsyncTransaction[AsyncS](
                self._source, options=given, attempt=tries.attempt
            )
            try:
                async with block as session:
                    return await awaitable(work(session, *args), work)
            except Exception as error:
                if not block.may_follow(error, tries):
                    raise
                wait = tries.announce(error)
            await asyncio.sleep(wait)

    @contextmanager
    def override(self, session: AsyncSession) -> Iterator[None]:
        """Give *session* to everybody, in all tasks and threads: for tests.

        Units commit it and roll it back, but leave it open.
        """
        with self._source.overridden(session):
            yield

    async def dispose(self) -> None:
        """Close all idle connections. The database can be used again afterwards."""
        await self.engine.dispose()


class Database(_Database, Generic[SyncS]):
    """A database for `Session`; lives as long as the application.

    As `AsyncDatabase`, for a sync driver, an `Engine`, a `sessionmaker`.
    Use it in `def` endpoints: on the event loop's own thread a sync session works, but
    blocks every other request, and `BlockingSessionWarning` says so once.
    Units wait for a connection on the event loop, first come, first served, and never
    in a framework's thread; `PoolTimeoutError` after the pool's `pool_timeout`.

    .. versionadded:: 0.1
    """

    @overload
    def __init__(
        self,
        source: str | URL | Engine | Callable[[], Engine],
        *,
        session_class: type[SyncS],
        name: str = ...,
        session_options: Mapping[str, object] | None = ...,
        settings: DatabaseSettings | None = ...,
        **engine_options: object,
    ) -> None: ...
    @overload
    def __init__(
        self,
        source: sessionmaker[SyncS] | Callable[[], sessionmaker[SyncS]],
        *,
        name: str = ...,
        session_options: Mapping[str, object] | None = ...,
        settings: DatabaseSettings | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: Database[Session],
        source: str | URL | Engine | Callable[[], Engine],
        *,
        session_class: None = ...,
        name: str = ...,
        session_options: Mapping[str, object] | None = ...,
        settings: DatabaseSettings | None = ...,
        **engine_options: object,
    ) -> None: ...
    def __init__(
        self,
        source: object,
        *,
        name: str = "default",
        session_class: Any = None,
        session_options: Mapping[str, object] | None = None,
        settings: DatabaseSettings | None = None,
        **engine_options: object,
    ) -> None:
        self._source = Source(
            source,
            is_async=False,
            name=name,
            session_class=session_class,
            session_options=session_options,
            settings=settings,
            engine_options=engine_options,
        )

    @property
    def engine(self) -> Engine:
        """The engine, for what is not a unit of work: `create_all()`, inspection."""
        return self._source.factory.engine

    @property
    def current(self) -> SyncS:
        """The session of the unit of work around the caller, from anywhere below it.

        Raises `MissingSessionError` outside a unit, `SessionEndedError` after its end.
        """
        return unit_of(self._source)._lease(self._source).session  # type: ignore[return-value]  # the factory's class

    @_injectable
    async def session(self, request: object = None) -> SyncS:
        """Give the session of the request: `Depends(db.session)`, for `def` endpoints.

        Waits on the event loop till a connection is to be had, but doesn't connect yet.
        Raises as `current` does, and `PoolTimeoutError`.
        """
        unit = unit_of_request(self._source, request)
        lease = unit._lease(self._source)
        await lease.enter()
        return lease.session  # type: ignore[return-value]  # the factory's class

    def transaction(
        self, *, nested: Nested = "own", **options: Unpack[BeginOptions]
    ) -> Transaction[SyncS]:
        """Open a unit of work: committed when the block ends, rolled back if it raises.

        Inside another unit *nested* says what it is to that: `"own"`, a transaction and
        connection of its own; `"join"`, the same session, committed by the unit around,
        which can't be committed any more if this block raises; `"savepoint"`, a
        savepoint in the same session. Where there is no unit around all three are one.
        *options* are those of `TransactionOptions` that a transaction begins with.

        Give each thread its own block. Raises what COMMIT raises;
        `UnexpectedRollbackError` if an error was swallowed that had cost the work;
        `UsageError` if the unit around has begun without the *options*.
        """
        return Transaction(self._source, nested, _given(options))

    def run(
        self,
        work: Callable[[SyncS, Unpack[Args]], T],
        *args: *Args,
        attempts: int = 1,
        retry: RetryPolicy | None = None,
        **options: Unpack[BeginOptions],
    ) -> T:
        """Call *work* with a session and *args* in a unit of its own; give its result.

        The unit is committed once *work* returns. If the database could not serialize
        it, or it came into a deadlock, all of that is done again, with a fresh session:
        *attempts* times at most, as *retry* says. Not if the outcome is unknown, nor
        after `side_effect_done()`; and inside a unit that is itself run again, only
        once. Raises what the last attempt raised, with a note of their number.
        """
        tries = tries_for(attempts, retry)
        given = _given(options, tries.attempts)
        while True:
            block = Transaction[SyncS](
                self._source, options=given, attempt=tries.attempt
            )
            try:
                with block as session:
                    return finished(work(session, *args), work)
            except Exception as error:
                if not block.may_follow(error, tries):
                    raise
                wait = tries.announce(error)
            time.sleep(wait)

    @contextmanager
    def override(self, session: Session) -> Iterator[None]:
        """Give *session* to everybody, in all tasks and threads: for tests.

        Units commit it and roll it back, but leave it open.
        """
        with self._source.overridden(session):
            yield

    def dispose(self) -> None:
        """Close all idle connections. The database can be used again afterwards."""
        self.engine.dispose()
