"""The second connection that a block needs while the unit around it holds one."""

from __future__ import annotations

from sqlalchemy import exc

from .._session.unit_session import UnitSession
from ..errors import PoolTimeoutError
from .sessions import sessions_around
from .unit import Unit

__all__ = ["POOL_TIMEOUTS", "check_second_connection"]

POOL_TIMEOUTS = (PoolTimeoutError, exc.TimeoutError)
"""Raised when no connection became free, by the admission gate or by the pool."""


def check_second_connection(
    unit: Unit, session: UnitSession | None, error: Exception
) -> None:
    """Raise `PoolTimeoutError` if *error* is that none became free for *session*."""
    if session is None or not session.awaiting_connection:
        return
    [database] = unit.databases.values()
    around = sessions_around(unit, database)
    if any(session.holds_connection for _, session in around):
        raise PoolTimeoutError(
            f"this block needs a second connection of database {database.name!r} while "
            f"the enclosing unit holds one, and all {database.pool_status().size} of "
            "the pool are in use. Make the pool larger than the number of units that "
            'run at once (pool_size), use transaction(nested="join") or '
            'nested="savepoint", or open the block after the enclosing unit'
        ) from error
