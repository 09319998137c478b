"""The number of an attempt at a unit's work, and what forbids another attempt."""

from __future__ import annotations

from typing import Protocol

from ..retry import Tries

__all__ = ["Attempt", "attempt_of", "take_next"]


class Attempt:
    """One attempt at the work of a unit, counted from 1.

    *seconds_used* is that of all its attempts: how long those that have failed used
    each database, by its name, as far as slow units are logged.
    """

    __slots__ = (
        "avoids_replicas",
        "not_repeatable_because",
        "number",
        "seconds_used",
    )

    def __init__(
        self,
        number: int = 1,
        seconds_used: dict[str, float] | None = None,
        *,
        avoids_replicas: bool = False,
    ) -> None:
        self.number = number
        self.avoids_replicas = avoids_replicas
        """Whether it reads from the primary alone: a replica has failed before."""
        self.seconds_used = {} if seconds_used is None else seconds_used
        self.not_repeatable_because: str | None = None

    def forbid_another(self, reason: str) -> None:
        """Forbid another attempt, and record why; the first *reason* stays."""
        if self.not_repeatable_because is None:
            self.not_repeatable_because = reason


def attempt_of(tries: Tries) -> Attempt:
    """The attempt that *tries* has come to."""
    return Attempt(
        tries.attempt, tries.seconds_used, avoids_replicas=tries.avoids_replicas
    )


class _Unit(Protocol):
    replica_failure: Exception | None

    @property
    def is_inside_a_retry(self) -> bool: ...

    @property
    def is_repeatable(self) -> bool: ...

    @property
    def may_be_retried(self) -> bool: ...


def take_next(unit: _Unit, tries: Tries) -> bool:
    """Count another attempt at *unit*; return `False` if there must be none.

    One that a replica has failed gets one more than it has otherwise, on the primary.
    """
    failed = unit.replica_failure is not None
    if failed and unit.is_repeatable and not unit.is_inside_a_retry:
        return tries.next_without_replicas()
    return unit.may_be_retried and tries.next()
