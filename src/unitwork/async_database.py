"""`AsyncDatabase`: a database for `AsyncSession`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Unpack, overload

from sqlalchemy.util import greenlet_spawn
from typing_extensions import TypeVar, TypeVarTuple

from ._engine.begin import TRANSACTION, Release
from ._observing.event import Observer
from ._session.database_core import DatabaseCore
from ._session.ping import aping
from ._unit.attempts import attempt_of
from ._unit.block import AsyncTransaction
from ._unit.context import unit_of_request
from ._unit.database_base import (
    DatabaseBase,
    awaitable,
    core_of,
    options_given,
    tries_for,
)
from ._unit.dependency import injectable
from ._unit.nested import Nested
from .options import BeginOptions
from .retry import RetryPolicy
from .settings import DatabaseSettings

if TYPE_CHECKING:
    from typing import TypeAlias

    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

    Replicas: TypeAlias = (
        Sequence[str | URL | AsyncEngine] | Callable[[], Sequence[AsyncEngine]]
    )

__all__ = ["AsyncDatabase"]

AsyncS = TypeVar("AsyncS", bound="AsyncSession", default="AsyncSession")
Args = TypeVarTuple("Args")
T = TypeVar("T")


class AsyncDatabase(DatabaseBase[AsyncS]):
    """A database for `AsyncSession`; lives as long as the application.

    *source* is a URL, an `AsyncEngine`, an `async_sessionmaker`, or a callable that
    returns one of the latter two and is called each time (late binding).
    *name* identifies the database in the application. *session_class* and
    *session_options* apply to each session, *settings* to unitwork, and other keywords
    to `create_async_engine()`: they need a URL. *release* is the mode of units that set
    no other: see `TransactionOptions`.

    *observers* get its events: see `observe()`.

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
        observers: Sequence[Observer] = ...,
        release: Release = ...,
        replicas: Sequence[str | URL | AsyncEngine]
        | Callable[[], Sequence[AsyncEngine]] = ...,
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
        observers: Sequence[Observer] = ...,
        release: Release = ...,
        replicas: Sequence[str | URL | AsyncEngine]
        | Callable[[], Sequence[AsyncEngine]] = ...,
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
        observers: Sequence[Observer] = ...,
        release: Release = ...,
        replicas: Sequence[str | URL | AsyncEngine]
        | Callable[[], Sequence[AsyncEngine]] = ...,
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
        observers: Sequence[Observer] = (),
        release: Release = TRANSACTION,
        replicas: Replicas | None = None,
        **engine_options: object,
    ) -> None:
        core = DatabaseCore(
            source,
            is_async=True,
            name=name,
            session_class=session_class,
            session_options=session_options,
            settings=settings,
            release=release,
            engine_options=engine_options,
            replicas=replicas,
        )
        super().__init__(core)
        for observer in observers:
            self.observe(observer)

    @property
    def engine(self) -> AsyncEngine:
        """The engine, for what is not a unit of work: `create_all()`, inspection."""
        return core_of(self).async_engine

    @injectable
    async def session(self, request: object = None) -> AsyncS:
        """Return the session of the request: `Depends(db.session)`.

        In plain Starlette `await db.session(request)`. Doesn't connect: the first
        statement does. Raises as `current` does.
        """
        core = core_of(self)
        unit = unit_of_request(core, request)
        return unit.session_of(core).session  # type: ignore[return-value]  # the factory's class

    async def __call__(self) -> AsyncS:
        """As `session()`: `Depends(db)` is `Depends(db.session)`."""
        return await self.session()

    def transaction(
        self, *, nested: Nested = "own", **options: Unpack[BeginOptions]
    ) -> AsyncTransaction[AsyncS]:
        """Open a unit of work: committed when the block ends, rolled back if it raises.

        *nested* matters inside another unit: `"own"`, a transaction and connection of
        its own; `"join"`, the same session, committed by the enclosing unit, which can
        only be rolled back if this block raises; `"savepoint"`, a savepoint in the same
        session. Without an enclosing unit all three are the same. *options* are those
        of `TransactionOptions` that a transaction begins with.

        Give each task its own block. Raises what COMMIT raises;
        `UnexpectedRollbackError` if the work was rolled back and the error caught;
        `UsageError` if the enclosing unit has begun without the *options*.
        """
        return AsyncTransaction(core_of(self), nested, options_given(options))

    async def run(
        self,
        work: Callable[[AsyncS, Unpack[Args]], Awaitable[T]],
        *args: *Args,
        attempts: int = 1,
        retry: RetryPolicy | None = None,
        **options: Unpack[BeginOptions],
    ) -> T:
        """Call *work* with a session and *args* in its own unit; return its result.

        The unit is committed once *work* returns. After a serialization failure or a
        deadlock all of that is done again, with a fresh session: *attempts* times at
        most, as *retry* defines. Not if the outcome is unknown, nor after
        `side_effect_done()`; and inside a unit that is itself retried, only once.
        Raises what the last attempt raised, with a note of their number.
        """
        tries = tries_for(attempts, retry)
        given = options_given(options, tries.attempts)
        while True:
            block = AsyncTransaction[AsyncS](
                core_of(self), options=given, attempt=attempt_of(tries)
            )
            try:
                async with block as session:
                    return await awaitable(work(session, *args), work)
            except Exception as error:
                if not block.allows_retry(error, tries):
                    raise
                wait, failure = tries.announce(error), error
            await asyncio.sleep(wait)
            block.report_retry(failure)
            del failure  # it leads back to here

    @contextmanager
    def override(self, session: AsyncSession) -> Iterator[None]:
        """Give *session* to every unit, in all tasks and threads: for tests.

        Units commit it and roll it back, but leave it open.
        """
        with core_of(self).overridden(session):
            yield

    async def ping(
        self,
        *,
        timeout: float = 2.0,  # noqa: ASYNC109  # as that of `Database`
    ) -> None:
        """Make one round trip, on a connection outside of any unit: a health check.

        Waits *timeout* seconds at most. Raises `DatabaseUnavailableError`.

        .. versionadded:: 0.2
        """
        await aping(core_of(self), timeout)

    async def dispose(self) -> None:
        """Close all idle connections. The database can be used again afterwards."""
        for engine in core_of(self).engines_to_dispose:
            await greenlet_spawn(engine.dispose)
