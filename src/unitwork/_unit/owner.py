"""What a unit needs of whatever opened it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..options import TransactionOptions

if TYPE_CHECKING:
    from .unit import Unit

__all__ = ["UnitOwner"]


class UnitOwner:
    """Whatever opened a unit, and ends it. As it is, for a `transaction()` block."""

    __slots__ = ()

    def options_of(self, unit: Unit) -> TransactionOptions:
        """The unit's own options, together with those that apply from further out."""
        return unit.own_options

    def may_write(self, options: TransactionOptions) -> bool:
        """Whether its sessions are expected to write."""
        return not options.read_only

    def allows_another_attempt(self, unit: Unit) -> bool:
        """Whether the work could be done once more from its beginning."""
        return True

    def session_requested(self, unit: Unit) -> None:
        """A session of *unit* is asked for."""

    def retry_forbidden(self) -> None:
        """Something was done that must not be done twice."""
