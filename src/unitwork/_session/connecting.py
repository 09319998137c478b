"""How a session of a unit connects, and begins its transaction."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import SessionTransaction

from .._call_site import find_call_site
from .._engine.begin import STATEMENT
from .._engine.hold_watch import hold_watch
from .._engine.pool_events import guard
from .._engine.pool_watch import announce
from .._observing.hold_report import HoldReport
from .._observing.sql_comment import comment_of
from .._observing.unit_report import UnitReport
from .._transaction.hold import Hold
from .._transaction.unit_begin import lend
from ..errors import UsageError
from . import after_statement
from .beginning import apply_characteristics, begin
from .commits import ServedSession
from .state import Access
from .unit_session import UnitSession

__all__ = ["bind_for", "connected"]

_OPEN = Access.OPEN
_IN_TRANSACTION = (
    "the session was given a connection that is in a transaction already, which the "
    "unit of work would not commit: give it one without a transaction, or an engine"
)


def bind_for(
    session: UnitSession, bind: Engine | Connection, statement: Any
) -> Engine | Connection:
    """Return *bind*, or its engine that begins with the unit's characteristics.

    Its pool is guarded from now on, if that is the first time that it is met.
    *statement* is about to be executed; `True` if it is not known, `False` in a flush.
    """
    binds = session.binds
    if binds is None or not isinstance(bind, Engine):
        guard(bind.engine)
        _check_connection(session, bind)
    connects = not session.connections or not session.sync_session.in_transaction()
    if connects:
        session.awaiting_connection = True
        session.goes_on_with = None
        wanted = session.owner.characteristics(session)
        if wanted is not None and wanted.release == STATEMENT:
            wanted = after_statement.characteristics(session, wanted, statement)
        session.begun_with = wanted
        if session.owner.two_phase is not None:
            session.owner.two_phase.check(session, bind)
        if session.reading is not None:
            found = session.reading.bind_to_connect(session, bind)
            if found is not None:
                return found
        if session.permit is not None and not session.permit.is_held:
            session.acquire_permit_to_connect()
    elif session.reading is not None and session.reading.engine is not None:
        bind = session.reading.bind_of(bind) or bind
    wanted = session.begun_with
    if binds is not None and isinstance(bind, Engine):
        if wanted is not None or bind not in binds.unchanged:
            bind = binds.find(bind, wanted)[0]
        elif connects and session.reading is None:
            session.goes_on_with = bind
    if connects and session.owner.report is not None:
        announce(session.owner.report, session.name, bind)
    return bind


def _check_connection(session: UnitSession, bind: Engine | Connection) -> None:
    """Raise `UsageError` if COMMIT would leave the transaction to its owner.

    A `Database` that was given a connection, as in tests, shares its transactions.
    """
    if session.binds is None or session.binds.shares_transactions:
        return
    if isinstance(bind, Engine) or bind in session.connections:
        return
    mode = session.sync_session.join_transaction_mode
    if bind.in_transaction() and mode != "control_fully":
        raise UsageError(_IN_TRANSACTION)


def connected(
    sync_session: Any, transaction: SessionTransaction, connection: Connection
) -> None:
    """Record the *connection* of the transaction, and begin on it.

    A listener to `after_begin`, which is called for savepoints, too.
    """
    session: UnitSession | None = sync_session.unitwork_session
    if session is None or transaction.nested:
        return
    if session.access is not _OPEN:  # it connected while its unit ended
        _refuse(session, connection)
    settings = session.settings
    taken_at = time.monotonic()
    hold = Hold(find_call_site(), taken_at, settings.hold_warning, settings.idle_limit)
    if (report := session.owner.report) is not None:
        _report(session, report, hold)
    session.awaiting_connection = False
    try:
        is_plain = type(connection) is Connection
        released = None if is_plain else after_statement.use_of(session, connection)
        session.connections.append(connection)
        session.ends.roots += ((connection, connection.get_transaction()),)
        if settings.slow_unit_warning is not None:
            session.ends.start_timing()
        state = lend(connection)
        loan = state.loan
        loan.end_timeout = settings.end_timeout
        loan.savepoints = session.ends.savepoints
        if released is None:
            loan = begin(session, connection, state)
        else:
            loan.undecided = released
    except BaseException:
        _not_begun(session, hold)
        raise
    loan.holder = served = ServedSession()
    served.session, loan.hold = session, hold
    hold.idle_since = time.monotonic()  # BEGIN is no idle time
    session.loans.append(loan)
    if hold.report is not None and released is None:
        hold.report.begun(hold.idle_since - taken_at)
    if hold.limit is not None and not hold_watch.is_on:
        hold_watch.start(hold.limit)
    prepares = session.prepares_transactions or session.owner.two_phase is not None
    if released is None and (prepares or session.begun_with is not None):
        apply_characteristics(session, connection, loan)


def _not_begun(session: UnitSession, hold: Hold) -> None:
    """Count a connection whose BEGIN has failed: it was held for a moment."""
    hold.returned()
    session.holds.append(hold)


def _refuse(session: UnitSession, connection: Connection) -> None:
    connection.invalidate()
    connection.close()
    session.check()  # which raises


def _report(session: UnitSession, report: UnitReport, hold: Hold) -> None:
    pool = session.name
    if session.reading is not None:
        pool = session.reading.pool_name(session)
    hold.report = HoldReport(report, session.name, pool)
    hold.comment = report.made_by("sql_tags", session.settings.sql_tags, comment_of)
    hold.report.taken(hold.call_site)
