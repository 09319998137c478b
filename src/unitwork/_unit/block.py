"""`transaction()` blocks: units of work outside a request, or beside its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Token
from inspect import currentframe
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from .._execution.plan import Plan
from .._execution.sync_runner import run
from .._observing.unit_events import UnitRetried
from .._session.database_core import DatabaseCore
from ..errors import MissingSessionError, UsageError
from ..options import NO_OPTIONS, TransactionOptions
from ..outcome import Outcome
from ..retry import Tries
from .attempts import Attempt, take_next
from .begin_options import join
from .context import UnitProvider, current, innermost, unit_of
from .endings import end_block
from .error_notes import explain
from .frames import is_held_by_dependency
from .generator_block import generator_around
from .nested import NESTED, Nested
from .open_blocks import OpenBlock
from .owner import UnitOwner
from .running import run_ending
from .second_connection import POOL_TIMEOUTS, check_second_connection
from .unit import Unit
from .with_misuse import refuse_async_with, refuse_with

if TYPE_CHECKING:
    from types import TracebackType

    from .._session.unit_session import UnitSession

__all__ = ["AsyncTransaction", "Transaction"]

S = TypeVar("S")

_OWNER = UnitOwner()


class _TransactionBlock(Generic[S]):
    """What both flavours share: the unit, and whether it is the block's own."""

    __slots__ = (
        "_attempt",
        "_database",
        "_holder",
        "_joined",
        "_nested",
        "_options",
        "_savepoint",
        "_session",
        "_token",
        "_unit",
    )

    def __init__(
        self,
        database: DatabaseCore,
        nested: Nested = "own",
        options: TransactionOptions = NO_OPTIONS,
        *,
        attempt: Attempt | None = None,
    ) -> None:
        if nested not in NESTED:
            raise UsageError(f"nested is {nested!r}; give one of {NESTED}")
        self._database = database
        self._nested = nested
        self._options = options
        self._attempt = attempt
        self._unit: Unit | None = None
        self._session: UnitSession | None = None
        self._token: Token[UnitProvider | None] | None = None
        self._savepoint: Any = None
        self._joined: OpenBlock | None = None
        self._holder: Unit | None = None
        """The unit that ends before this block, as a dependency holds it open."""

    def _open(self) -> S:
        """Join the enclosing unit, or open a new one; return its session."""
        if self._unit is not None:
            raise UsageError(
                "a transaction() block can't be entered twice; call transaction() again"
            )
        around = self._around() if self._nested != "own" else None
        if around is None:
            databases = {self._database.name: self._database}
            self._unit = unit = Unit(databases, _OWNER, innermost(), self._attempt)
            unit.own_options = self._options
            unit.is_sync = not self._database.is_async
            try:
                self._session = unit.session_of(self._database)
            except BaseException:
                unit.close()  # nothing else will: the block is not entered
                raise
            self._token = current.set(unit)
            unit.generator_block = generator_around(currentframe())
            self._holder = self._holder_of(unit)
            if self._holder is not None:
                self._holder.open_blocks.hold(1)
        else:
            join(around, self._options)
            self._unit = around
            self._session = around.session_of(self._database)
            held = around.is_held(currentframe())
            self._joined = around.open_blocks.join(self._nested, held=held)
        return cast(S, self._session.session)

    def _holder_of(self, unit: Unit) -> Unit | None:
        """The enclosing unit, if it ends before this block, which may write."""
        if unit.parent is None or self._options.read_only:
            return None
        return unit.parent if is_held_by_dependency(currentframe()) else None

    def _around(self) -> Unit | None:
        try:
            unit = unit_of(self._database)
        except MissingSessionError:
            return None
        return unit if unit.is_open else None

    def allows_retry(self, error: Exception, tries: Tries) -> bool:
        """Whether the work of this block, which has ended, may be tried again."""
        unit = self._unit
        again = (
            unit is not None
            and unit.outcome in (Outcome.ROLLED_BACK, Outcome.EMPTY)
            and (unit.replica_failure or tries.policy.retryable(error)) is not None
            and take_next(unit, tries)
        )
        if not again:
            tries.note(error)
        return again

    def report_retry(self, error: Exception) -> None:
        """Report that the work, which has failed with *error*, is done once more."""
        if self._unit is not None and self._unit.report is not None:
            self._unit.report.emit(UnitRetried, error)

    def _end(self, unit: Unit, error: BaseException | None) -> Plan[None]:
        """End the block's own unit; explain the timeout of a second connection."""
        explain(error, unit)
        try:
            yield from end_block(unit, error)
        except POOL_TIMEOUTS as failure:  # the flush connected first
            check_second_connection(unit, self._session, failure)
            raise
        if isinstance(error, POOL_TIMEOUTS):
            check_second_connection(unit, self._session, error)

    def _leave_joined(self, error: BaseException | None) -> None:
        """Let the enclosing unit end; it can't commit any more after an *error*."""
        assert self._unit is not None
        assert self._joined is not None
        if error is not None and self._savepoint is None:
            self._unit.lose(error)
        self._unit.open_blocks.leave(self._joined)
        if error is None:
            self._joined.check()

    @contextmanager
    def _leaving_on_error(self) -> Iterator[None]:
        """Leave the enclosing unit if its savepoint fails to begin or to end."""
        assert self._unit is not None
        assert self._joined is not None
        try:
            yield
        except BaseException:
            self._unit.open_blocks.leave(self._joined)
            raise

    def _leave(self) -> None:
        if self._unit is not None and self._unit.generator_block is not None:
            self._unit.generator_block.end()
        if self._holder is not None:
            self._holder.open_blocks.hold(-1)
        if self._token is None:
            return
        try:
            current.reset(self._token)
        except ValueError:  # left in another context than it was entered in
            if self._unit is not None and current.get() is self._unit:
                current.set(self._unit.parent)

    @property
    def _is_own(self) -> bool:
        return self._token is not None


class Transaction(_TransactionBlock[S]):
    """`with db.transaction() as session:`, of a `Database`."""

    __slots__ = ()

    if not TYPE_CHECKING:
        __aenter__ = __aexit__ = refuse_async_with

    def __enter__(self) -> S:
        session = self._open()
        if not self._is_own and self._nested == "savepoint":
            with self._leaving_on_error():
                savepoint = cast(Any, session).begin_nested()
                savepoint.__enter__()
            self._savepoint = savepoint
        return session

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._unit is not None
        if self._is_own:
            if self._unit.known_blocks is not None:
                self._unit.known_blocks.end_requested()
            try:
                run(self._end(self._unit, error))
            finally:
                self._leave()
            return
        with self._leaving_on_error():
            if self._savepoint is not None:
                self._savepoint.__exit__(kind, error, traceback)
        self._leave_joined(error)


class AsyncTransaction(_TransactionBlock[S]):
    """`async with db.transaction() as session:`, of an `AsyncDatabase`."""

    __slots__ = ()

    if not TYPE_CHECKING:
        __enter__ = __exit__ = refuse_with

    async def __aenter__(self) -> S:
        session = self._open()
        if not self._is_own and self._nested == "savepoint":
            with self._leaving_on_error():
                savepoint = cast(Any, session).begin_nested()
                await savepoint.__aenter__()
            self._savepoint = savepoint
        return session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._unit is not None
        if self._is_own:
            try:
                await run_ending(self._unit, self._end(self._unit, error))
            finally:
                self._leave()
            return
        with self._leaving_on_error():
            if self._savepoint is not None:
                await self._savepoint.__aexit__(kind, error, traceback)
        self._leave_joined(error)
