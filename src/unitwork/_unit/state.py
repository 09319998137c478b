"""The states of a unit of work, its intent, and the moves between them."""

from __future__ import annotations

from enum import Enum, IntEnum

__all__ = ["IllegalMove", "Intent", "UnitState", "check_move"]


class IllegalMove(RuntimeError):
    """A defect of unitwork: a state can't follow the current one."""


class UnitState(Enum):
    """The state of a unit of work.

    ```text
    OPEN ──> ENDING ──> COMMITTING ──> SETTLED ──> CLOSED
     │ ^        │           │           ^   │
     │ │        v           v           │   │
     │ │        └─> ROLLING_BACK ───────┘   │
     │ └────────────────────────────────────┘ for a response's body, the next message
     └──> CLOSED where nothing is open
    ```
    """

    OPEN = "open"
    ENDING = "ending"
    """Flushes and `before_commit` hooks: sessions work, a cancellation rolls back."""
    COMMITTING = "committing"
    """COMMIT has been sent: nothing interrupts it."""
    ROLLING_BACK = "rolling back"
    SETTLED = "settled"
    """The outcome is known; hooks run."""
    CLOSED = "closed"


class Intent(IntEnum):
    """What the code of a unit has decided about its end. It only rises."""

    UNDECIDED = 0
    COMMIT_ANYWAY = 1
    ROLLBACK_ONLY = 2
    LOST = 3
    """An error lost the work, and was not raised any further."""


_NEXT = {
    UnitState.OPEN: {UnitState.ENDING, UnitState.CLOSED},
    UnitState.ENDING: {
        UnitState.COMMITTING,
        UnitState.ROLLING_BACK,
        UnitState.SETTLED,  # there was nothing to commit
    },
    UnitState.COMMITTING: {UnitState.SETTLED, UnitState.ROLLING_BACK},
    UnitState.ROLLING_BACK: {UnitState.SETTLED},
    UnitState.SETTLED: {UnitState.OPEN, UnitState.CLOSED},
    UnitState.CLOSED: set[UnitState](),
}


def check_move(old: UnitState, new: UnitState) -> None:
    """Raise `IllegalMove` unless *new* may follow *old*."""
    if new not in _NEXT[old]:
        raise IllegalMove(f"a unit of work that is {old.value} can't be {new.value}")
