"""`transaction()` blocks: units of work outside a request, or beside its own."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from contextvars import Token
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, get_args

from sqlalchemy import exc

from ._asking import join
from ._current import current, unit_of
from ._drive import Plan, run
from ._ending import Outcome
from ._ends import conclude
from ._unit import UnitOfWork
from .errors import MissingSessionError, PoolTimeoutError, UsageError
from .options import NO_OPTIONS, TransactionOptions
from .retry import RetryPolicy, Tries

if TYPE_CHECKING:
    from types import TracebackType

    from ._session import Lease
    from ._source import Source

__all__ = [
    "AsyncTransaction",
    "Nested",
    "Transaction",
    "awaitable",
    "finished",
    "tries_for",
]

Nested = Literal["own", "join", "savepoint"]
S = TypeVar("S")
T = TypeVar("T")

_IN_VAIN = (PoolTimeoutError, exc.TimeoutError)
"""What whoever waits for a connection gets, at the gate or from the pool."""


def tries_for(attempts: int, policy: RetryPolicy | None) -> Tries:
    """Begin to count; inside a unit that is itself run again there is one attempt."""
    around = current.get()
    if around is not None and around._is_in_a_retry:
        attempts = 1
    return Tries(policy or RetryPolicy(), attempts)


def awaitable(result: Awaitable[T], work: object) -> Awaitable[T]:
    """Give what *work* of `AsyncDatabase.run()` has given, if it can be awaited."""
    if not inspect.isawaitable(result):
        raise UsageError(
            f"{work!r} is no coroutine function, and AsyncDatabase.run() awaits it; "
            "make it `async def`, or use Database for plain functions"
        )
    return result


def finished(result: T, work: object) -> T:
    """Give what *work* of `Database.run()` has given, if it is not yet to be done."""
    if not inspect.isawaitable(result):
        return result
    if inspect.iscoroutine(result):
        result.close()
    raise UsageError(
        f"{work!r} is a coroutine function, and Database.run() can't await it; give a "
        "plain function, or use AsyncDatabase"
    )


class _Block(Generic[S]):
    """What both flavours know: whose unit it is, and which."""

    __slots__ = (
        "_attempt",
        "_lease",
        "_nested",
        "_options",
        "_savepoint",
        "_source",
        "_token",
        "_unit",
    )

    def __init__(
        self,
        source: Source,
        nested: Nested = "own",
        options: TransactionOptions = NO_OPTIONS,
        *,
        attempt: int = 1,
    ) -> None:
        if nested not in get_args(Nested):
            raise UsageError(f"nested is {nested!r}; give one of {get_args(Nested)}")
        self._source = source
        self._nested = nested
        self._options = options
        self._attempt = attempt
        self._unit: UnitOfWork | None = None
        self._lease: Lease | None = None
        self._token: Token[UnitOfWork | None] | None = None
        self._savepoint: Any = None

    def _open(self, *, sync: bool) -> S:
        """Enter the unit around, or one of our own; give its session."""
        if self._unit is not None:
            raise UsageError("a transaction() block can't be entered twice; call again")
        around = self._around() if self._nested != "own" else None
        if around is None:
            self._unit = UnitOfWork(
                {self._source.name: self._source}, current.get(), sync
            )
            self._unit._asked = self._options
            self._unit._attempt = self._attempt
            self._lease = self._unit._lease(self._source)
            self._token = current.set(self._unit)
        else:
            join(around, self._options)
            self._unit = around
            self._lease = around._lease(self._source)
        return cast(S, self._lease.session)

    def _around(self) -> UnitOfWork | None:
        try:
            unit = unit_of(self._source)
        except MissingSessionError:
            return None
        return None if unit._ended else unit

    def may_follow(self, error: Exception, tries: Tries) -> bool:
        """Whether another block may try what this one, which is over, has not done."""
        unit = self._unit
        if unit is None or not unit._may_be_retried:
            tries.note(error)
            return False
        undone = unit.outcome in (Outcome.ROLLED_BACK, Outcome.EMPTY)
        if undone and tries.policy.retryable(error) is not None and tries.next():
            return True
        tries.note(error)
        return False

    def _conclude(self, error: BaseException | None) -> Plan[None]:
        """End the unit of our own; name the cause if the pool had nothing for it."""
        assert self._unit is not None
        try:
            yield from conclude(self._unit, error)
        except _IN_VAIN as failure:  # a flush had to connect
            self._check_room(failure)
            raise
        if isinstance(error, _IN_VAIN):
            self._check_room(error)

    def _check_room(self, error: Exception) -> None:
        """Raise `PoolTimeoutError` if it was a second connection that was not there."""
        if self._unit is None or self._lease is None or not self._lease.wanting:
            return
        if any(lease.holds for _, lease in self._unit._around(self._source)):
            raise PoolTimeoutError(
                "this block needs a second connection of database "
                f"{self._source.name!r} while the unit around it holds one, and all "
                f"{self._source.pool_status().size} of the pool are in use. Let the "
                "pool have at least one more than the units that run at once "
                '(pool_size), use transaction(nested="join") or nested="savepoint", '
                "or open the block after the unit around it"
            ) from error

    def _close(self) -> None:
        if self._token is None:
            return
        try:
            current.reset(self._token)
        except ValueError:  # left in another context than it was entered in
            if self._unit is not None and current.get() is self._unit:
                current.set(self._unit._parent)

    @property
    def _own(self) -> bool:
        return self._token is not None


class Transaction(_Block[S]):
    """`with db.transaction() as session:`, of a `Database`."""

    def __enter__(self) -> S:
        session = self._open(sync=True)
        if not self._own and self._nested == "savepoint":
            self._savepoint = cast(Any, session).begin_nested()
            self._savepoint.__enter__()
        return session

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._unit is not None
        if self._own:
            try:
                run(self._conclude(error))
            finally:
                self._close()
        elif self._savepoint is not None:
            self._savepoint.__exit__(kind, error, traceback)
        elif error is not None:
            self._unit._swallowed(error)


class AsyncTransaction(_Block[S]):
    """`async with db.transaction() as session:`, of an `AsyncDatabase`."""

    async def __aenter__(self) -> S:
        session = self._open(sync=False)
        if not self._own and self._nested == "savepoint":
            self._savepoint = cast(Any, session).begin_nested()
            await self._savepoint.__aenter__()
        return session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._unit is not None
        if self._own:
            try:
                await self._unit._run(self._conclude(error))
            finally:
                self._close()
        elif self._savepoint is not None:
            await self._savepoint.__aexit__(kind, error, traceback)
        elif error is not None:
            self._unit._swallowed(error)
