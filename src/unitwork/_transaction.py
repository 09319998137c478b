"""`transaction()` blocks: units of work outside a request, or beside its own."""

from __future__ import annotations

from contextvars import Token
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, get_args

from ._current import current, unit_of
from ._plan import run
from ._unit import UnitOfWork
from .errors import MissingSessionError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    from ._source import Source

__all__ = ["AsyncTransaction", "Nested", "Transaction"]

Nested = Literal["own", "join", "savepoint"]
S = TypeVar("S")


class _Block(Generic[S]):
    """What both flavours know: whose unit it is, and which."""

    __slots__ = ("_nested", "_savepoint", "_source", "_token", "_unit")

    def __init__(self, source: Source, nested: Nested) -> None:
        if nested not in get_args(Nested):
            raise UsageError(f"nested is {nested!r}; give one of {get_args(Nested)}")
        self._source = source
        self._nested = nested
        self._unit: UnitOfWork | None = None
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
            self._token = current.set(self._unit)
        else:
            self._unit = around
        return cast(S, self._unit._lease(self._source).session)

    def _around(self) -> UnitOfWork | None:
        try:
            unit = unit_of(self._source)
        except MissingSessionError:
            return None
        return None if unit._ended else unit

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
                run(self._unit._conclude(error))
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
                await self._unit._run(self._unit._conclude(error))
            finally:
                self._close()
        elif self._savepoint is not None:
            await self._savepoint.__aexit__(kind, error, traceback)
        elif error is not None:
            self._unit._swallowed(error)
