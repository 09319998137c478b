"""The number of an attempt at a unit's work, and what forbids another attempt."""

from __future__ import annotations

__all__ = ["Attempt"]


class Attempt:
    """One attempt at the work of a unit, counted from 1."""

    __slots__ = ("not_repeatable_because", "number")

    def __init__(self, number: int = 1) -> None:
        self.number = number
        self.not_repeatable_because: str | None = None

    def forbid_another(self, reason: str) -> None:
        """Forbid another attempt, and record why; the first *reason* stays."""
        if self.not_repeatable_because is None:
            self.not_repeatable_because = reason
