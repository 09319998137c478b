"""Begins the transaction of a session on a connection that it has just taken."""

from __future__ import annotations

from sqlalchemy import Connection

from .._engine.begin import apply
from .._transaction.connection_state import ConnectionState
from .._transaction.loan import Loan
from .._transaction.unit_begin import begin_on
from .first_setting import first_setting
from .unit_session import UnitSession

__all__ = ["apply_characteristics", "begin"]


def begin(session: UnitSession, connection: Connection, state: ConnectionState) -> Loan:
    """Begin; returns the loan, which is another one if the connection was replaced."""
    settings, activity = session.settings, session.activity
    if settings.application_name is not None and not state.loan.is_open:
        state.loan.first_setting = first_setting(session.owner, settings)
    activity.is_beginning = True
    try:
        verify = settings.verify_commit is True and session.owned
        with_id = verify and session.owner.identifies_transactions(session)
        return begin_on(connection, state, with_id=with_id)
    finally:
        activity.is_beginning = False


def apply_characteristics(
    session: UnitSession, connection: Connection, loan: Loan
) -> None:
    """Apply what the transaction is to have, before its first statement."""
    if session.reading is not None:
        session.reading.connected(session, connection, loan)
    binds = session.binds
    if binds is not None and (binds.has_defaults or session.begun_with is not None):
        _, directives = binds.find(connection.engine, session.begun_with)
        if directives is not None:
            apply(connection, loan, directives)
            loan.texts.clear()  # of the application there is none yet
    if session.owner.two_phase is not None:
        session.owner.two_phase.begin(session, connection)
