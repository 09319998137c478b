"""Savepoints and transactions of `begin()` whose failed flush was swallowed inside."""

from __future__ import annotations

from types import TracebackType

from sqlalchemy.orm import SessionTransaction

from ..errors import UnexpectedRollbackError

__all__ = ["CheckedTransaction"]

_ROLLED_BACK = (
    "the work of this {block} block is lost: a flush inside it has failed, which has "
    "rolled it back, and the error was swallowed there. Let the error leave the block; "
    "catch it around the block"
)


class CheckedTransaction(SessionTransaction):
    """Raises if its block ends without an error although a flush has rolled it back.

    SQLAlchemy would end it in silence, and what follows would take it for stored.
    """

    __slots__ = ()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lost = kind is None and not self.is_active and _is_open(self)
        block = "begin_nested()" if self.nested else "begin()"
        super().__exit__(kind, error, traceback)
        if lost:
            raise UnexpectedRollbackError(_ROLLED_BACK.format(block=block))


def _is_open(transaction: SessionTransaction) -> bool:
    """Whether it has not been ended by hand."""
    session = transaction.session
    return transaction in (session.get_nested_transaction(), session.get_transaction())
