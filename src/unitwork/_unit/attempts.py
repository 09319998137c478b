"""The number of an attempt at a unit's work, and what forbids another attempt."""

from __future__ import annotations

from ..retry import Tries

__all__ = ["Attempt", "attempt_of"]


class Attempt:
    """One attempt at the work of a unit, counted from 1.

    *seconds_used* is that of all its attempts: how long those that have failed used
    each database, by its name, as far as slow units are logged.
    """

    __slots__ = ("not_repeatable_because", "number", "seconds_used")

    def __init__(
        self, number: int = 1, seconds_used: dict[str, float] | None = None
    ) -> None:
        self.number = number
        self.seconds_used = {} if seconds_used is None else seconds_used
        self.not_repeatable_because: str | None = None

    def forbid_another(self, reason: str) -> None:
        """Forbid another attempt, and record why; the first *reason* stays."""
        if self.not_repeatable_because is None:
            self.not_repeatable_because = reason


def attempt_of(tries: Tries) -> Attempt:
    """The attempt that *tries* has come to."""
    return Attempt(tries.attempt, tries.seconds_used)
