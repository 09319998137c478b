"""The session of a test, which all units share: one at a time, or one in the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UsageError
from .misuse import OVERRIDDEN
from .unit_session import UnitSession, unit_session_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from .owner import SessionOwner

__all__ = ["check_free", "check_not_taken"]

_IN_USE = f"another unit of work is using the session of db.override(): {OVERRIDDEN}"


def check_free(
    session: Session | AsyncSession, owner: SessionOwner[UnitSession]
) -> None:
    """Raise `UsageError` if a unit that does not enclose *owner* is using *session*."""
    other = unit_session_of(getattr(session, "sync_session", session))
    if other is None or not other.in_transaction:
        return
    if all(other.owner is not unit for unit in owner.outwards()):
        raise UsageError(_IN_USE)


def check_not_taken(session: UnitSession) -> None:
    """Raise `UsageError` if another unit has the same session by now."""
    other = unit_session_of(session.sync_session)
    if other is not None and other is not session:
        raise UsageError(_IN_USE)
