"""The states of a unit of work, and the moves between them."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["NEXT_STATES", "IllegalMove", "UnitState"]


class IllegalMove(RuntimeError):
    """A defect of unitwork: a state can't follow the current one."""


class UnitState(IntEnum):
    """The state of a unit of work.

    ```text
    OPEN ─────────> ENDING; CLOSED, where nothing is open
    ENDING ───────> COMMITTING; ROLLING_BACK; SETTLED, where nothing is to be committed
    COMMITTING ───> SETTLED; ROLLING_BACK, where COMMIT has failed
    ROLLING_BACK ─> SETTLED
    SETTLED ──────> CLOSED; OPEN again, for a response's body or the next message
    ```

    Integers, as states are looked up with each move.
    """

    OPEN = 0
    ENDING = 1
    """Flushes and `before_commit` hooks: sessions work, a cancellation rolls back."""
    COMMITTING = 2
    """COMMIT has been sent: nothing interrupts it."""
    ROLLING_BACK = 3
    SETTLED = 4
    """The outcome is known; hooks run."""
    CLOSED = 5

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", " ")


NEXT_STATES = {
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
"""Which state may follow which."""
