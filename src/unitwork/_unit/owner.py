"""The interface of a unit to the request, WebSocket or block that opened it."""

from __future__ import annotations

from typing import Any, Generic, Protocol

from typing_extensions import TypeVar

from ..options import TransactionOptions

__all__ = ["UnitOwner"]


class OwnedUnit(Protocol):
    """What the default methods of an owner use of its unit."""

    own_options: TransactionOptions


UnitT = TypeVar("UnitT", bound=OwnedUnit, default=Any)
"""The class of the unit, which imports this module and not the other way round."""


class UnitOwner(Generic[UnitT]):
    """Opens and ends a unit. This base class is the owner of a block's unit."""

    __slots__ = ()

    def find_options(self, own: TransactionOptions) -> TransactionOptions:
        """Merge the unit's *own* options with those of its route and application."""
        return own

    def may_write(self, options: TransactionOptions) -> bool:
        """Whether its sessions are expected to write."""
        return not options.read_only

    def allows_another_attempt(self, unit: UnitT) -> bool:
        """Whether the work could be done once more from its beginning."""
        return True

    def session_requested(self, unit: UnitT) -> None:
        """Called when a session of *unit* is requested."""

    def retry_forbidden(self) -> None:
        """Called when the unit must not be retried any more."""
