"""The interface of a unit to the request, WebSocket or block that opened it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..options import TransactionOptions

if TYPE_CHECKING:
    from .unit import Unit

__all__ = ["UnitOwner"]


class UnitOwner:
    """Opens and ends a unit. This base class is the owner of a block's unit."""

    __slots__ = ()

    def options_of(self, unit: Unit) -> TransactionOptions:
        """The unit's own options, merged over those of its route and application."""
        return unit.own_options

    def may_write(self, options: TransactionOptions) -> bool:
        """Whether its sessions are expected to write."""
        return not options.read_only

    def allows_another_attempt(self, unit: Unit) -> bool:
        """Whether the work could be done once more from its beginning."""
        return True

    def session_requested(self, unit: Unit) -> None:
        """Called when a session of *unit* is requested."""

    def retry_forbidden(self) -> None:
        """Called when the unit must not be retried any more."""
