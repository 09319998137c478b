"""The states of the transaction of a loan, and the moves between them."""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

__all__ = ["MOVES", "TransactionState", "Undecided"]


class TransactionState(IntEnum):
    """The state of the transaction of a loan. Only the `Loan` changes it.

    Integers, as states are looked up with each move.
    """

    NONE = 0
    """Not begun, as far as the driver has reported; or rolled back by SQLAlchemy."""
    OPEN = 1
    ENDING = 2
    """SQLAlchemy's COMMIT or ROLLBACK is under way."""
    IN_TWO_PHASES = 3
    """It ends by PREPARE TRANSACTION or XA PREPARE."""
    COMMITTED = 4
    """By SQLAlchemy: the answer to COMMIT has said so."""
    CONTINUED = 5
    """The same, and another one has begun on the connection."""
    LOST = 6
    """Rolled back as a whole, and not by SQLAlchemy."""
    REPLACED = 7
    """Ended by SQL or the driver, where another one may have begun since."""
    ABANDONED = 8
    """A thread of aiosqlite may still run a cancelled statement of it."""


_S = TransactionState
MOVES = {
    _S.NONE: set(_S) - {_S.CONTINUED},
    _S.OPEN: set(_S) - {_S.CONTINUED},
    _S.ABANDONED: {_S.NONE, _S.LOST, _S.REPLACED},
    _S.ENDING: {_S.NONE, _S.COMMITTED, _S.LOST, _S.REPLACED},
    _S.IN_TWO_PHASES: {_S.COMMITTED, _S.LOST},
    _S.COMMITTED: {_S.CONTINUED, _S.ENDING, _S.LOST, _S.REPLACED},
    _S.CONTINUED: {_S.COMMITTED, _S.ENDING, _S.LOST, _S.REPLACED},
    _S.REPLACED: {_S.LOST},
    _S.LOST: set[_S](),
}
"""Another move is ignored: the state says more than it would."""


class Undecided(Protocol):
    """A user of the connection for which no transaction has begun yet."""

    @property
    def has_begun(self) -> bool:
        """Whether something else has begun one."""
        ...

    def begin(self) -> None:
        """Begin it; from then on it lives as long as any other."""
