"""Releases the connections of a session before its unit ends: two steps of a plan."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sqlalchemy.exc import (
    IllegalStateChangeError,
    InvalidRequestError,
    SQLAlchemyError,
)
from sqlalchemy.orm import Session

from .._driver.sqlalchemy_internals import has_own_connections, take_connections
from .._transaction.lost_work import ended_elsewhere
from .._transaction.release_evidence import find_obstacle
from ..errors import UsageError
from .unit_session import UnitSession, unit_session_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["check_releasable", "give_back", "release"]

_HELD = (
    "the connection of database {name!r} can't be released for {what}: {why}. {remedy}"
)
_REMEDY = (
    "Move the call before that; or behind a `session.commit()`, which can't be undone "
    "any more; or into a hook, `unit.on_commit(...)`"
)


def check_releasable(session: Session, what: str) -> None:
    """Raise `UsageError` unless the connections of *session* may be released now."""
    unit_session = unit_session_of(session)
    if unit_session is None:
        return
    if unit_session.activity.is_under_way:
        raise IllegalStateChangeError("another task or thread uses the session")
    why = _why_not(unit_session)
    if why is None and not session.is_active:
        why = "a flush has failed, and its error was swallowed"
    if why is None:
        why = _obstacle_of(unit_session)
    if why is not None:
        raise UsageError(
            _HELD.format(name=unit_session.name, what=what, why=why, remedy=_REMEDY)
        )


def _obstacle_of(unit_session: UnitSession) -> str | None:
    wanted = unit_session.begun_with
    level = None if wanted is None else wanted.isolation_level
    # A connection that was lost at BEGIN has no loan, and nothing to keep.
    pairs = zip(unit_session.connections, unit_session.loans, strict=False)
    for connection, loan in pairs:
        if (why := find_obstacle(connection, loan, level)) is not None:
            return why
    return None


def _why_not(unit_session: UnitSession) -> str | None:
    """What keeps the connections, whatever their transactions have done. No I/O."""
    session = unit_session.sync_session
    if session.in_nested_transaction():
        return "a savepoint is open"
    if unit_session.kept_for_stream:
        return "stream=True keeps its transaction until the last chunk"
    if session.twophase or unit_session.ends.by_connection:
        return "its transaction is ended by other means"
    if any(connection.invalidated for connection in unit_session.connections):
        return "the connection was lost, and with it what was done"
    if not has_own_connections(session):
        return "the application has given the session its connection"
    return None


def release(session: Session) -> None:
    """Roll back what has only read, and give the connections back to the pool.

    The objects of *session* stay as they are, and so does what it has not flushed.
    Raises `CommitUnknownError` if something else has ended a transaction meanwhile.
    """
    unit_session = unit_session_of(session)
    if unit_session is None:
        return
    loans = list(unit_session.loans)
    try:
        for connection in take_connections(session):
            give_back(connection)
        if any(loan.was_replaced for loan in loans):
            error = ended_elsewhere()
            unit_session.owner.commit_unclear(error)
            raise error
    finally:
        unit_session.connections_released()


def give_back(connection: Connection) -> None:
    """Roll back and close *connection*; discard it if that fails: nothing is lost."""
    try:
        connection.close()
    except BaseException as error:
        with suppress(InvalidRequestError):  # closed all the same
            connection.invalidate()
            connection.close()
        if not isinstance(error, SQLAlchemyError):
            raise
