"""`Database`: a database for `Session`; and `AsyncDatabase`, its twin."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Unpack, overload

from sqlalchemy.orm import Session, sessionmaker
from typing_extensions import TypeVar, TypeVarTuple

from ._engine.begin import TRANSACTION, Release
from ._observing.event import Observer
from ._session.database_core import DatabaseCore, PoolStatus
from ._session.ping import ping
from ._unit.attempts import attempt_of
from ._unit.block import Transaction
from ._unit.context import unit_of_request
from ._unit.database_base import (
    DatabaseBase,
    core_of,
    finished,
    options_given,
    tries_for,
)
from ._unit.dependency import injectable
from ._unit.nested import Nested
from .async_database import AsyncDatabase
from .options import BeginOptions
from .retry import RetryPolicy
from .settings import DatabaseSettings

if TYPE_CHECKING:
    from typing import TypeAlias

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

    Replicas: TypeAlias = Sequence[str | URL | Engine] | Callable[[], Sequence[Engine]]

__all__ = ["AsyncDatabase", "Database", "PoolStatus"]

SyncS = TypeVar("SyncS", bound=Session, default=Session)
Args = TypeVarTuple("Args")
T = TypeVar("T")


class Database(DatabaseBase[SyncS]):
    """A database for `Session`; lives as long as the application.

    As `AsyncDatabase`, for a sync driver, an `Engine`, a `sessionmaker`.
    Use it in `def` endpoints: on the event loop's own thread a sync session works, but
    blocks every other request: `BlockingSessionWarning`, once.
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
        observers: Sequence[Observer] = ...,
        release: Release = ...,
        replicas: Replicas = ...,
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
        observers: Sequence[Observer] = ...,
        release: Release = ...,
        replicas: Replicas = ...,
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
        observers: Sequence[Observer] = ...,
        release: Release = ...,
        replicas: Replicas = ...,
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
            is_async=False,
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
    def engine(self) -> Engine:
        """The engine, for what is not a unit of work: `create_all()`, inspection."""
        return core_of(self).factory.engine

    @injectable
    async def session(self, request: object = None) -> SyncS:
        """Return the session of the request: `Depends(db.session)`, in `def` endpoints.

        Waits on the event loop until a connection is free, but doesn't connect yet.
        Raises as `current` does, and `PoolTimeoutError`.
        """
        core = core_of(self)
        unit = unit_of_request(core, request)
        session = unit.session_of(core)
        await session.acquire_permit()
        return session.session  # type: ignore[return-value]  # the factory's class

    async def __call__(self) -> SyncS:
        """As `session()`: `Depends(db)` is `Depends(db.session)`."""
        return await self.session()

    def transaction(
        self, *, nested: Nested = "own", **options: Unpack[BeginOptions]
    ) -> Transaction[SyncS]:
        """Open a unit of work: committed when the block ends, rolled back if it raises.

        *nested* matters inside another unit: `"own"`, a transaction and connection of
        its own; `"join"`, the same session, committed by the enclosing unit, which can
        only be rolled back if this block raises; `"savepoint"`, a savepoint in the same
        session. Without an enclosing unit all three are the same. *options* are those
        of `TransactionOptions` that a transaction begins with.

        Give each thread its own block. Raises what COMMIT raises;
        `UnexpectedRollbackError` if the work was rolled back and the error caught;
        `UsageError` if the enclosing unit has begun without the *options*.
        """
        return Transaction(core_of(self), nested, options_given(options))

    def run(
        self,
        work: Callable[[SyncS, Unpack[Args]], T],
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
            block = Transaction[SyncS](
                core_of(self), options=given, attempt=attempt_of(tries)
            )
            try:
                with block as session:
                    return finished(work(session, *args), work)
            except Exception as error:
                if not block.allows_retry(error, tries):
                    raise
                wait, failure = tries.announce(error), error
            time.sleep(wait)
            block.report_retry(failure)
            del failure  # it leads back to here

    @contextmanager
    def override(self, session: Session) -> Iterator[None]:
        """Give *session* to every unit, in all tasks and threads: for tests.

        Units commit it and roll it back, but leave it open.
        """
        with core_of(self).overridden(session):
            yield

    def ping(self, *, timeout: float = 2.0) -> None:
        """Make one round trip, on a connection outside of any unit: a health check.

        Waits *timeout* seconds at most. Raises `DatabaseUnavailableError`; and
        `UsageError` on the event loop's own thread, which it would block.

        .. versionadded:: 0.2
        """
        ping(core_of(self), timeout)

    def dispose(self) -> None:
        """Close all idle connections. The database can be used again afterwards."""
        for engine in core_of(self).engines_to_dispose:
            engine.dispose()
