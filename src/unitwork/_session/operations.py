"""A plan's operations on a session: each is one call, in its greenlet or thread."""

from __future__ import annotations

import inspect
import logging
from contextlib import suppress

from sqlalchemy.exc import IllegalStateChangeError, InvalidRequestError
from sqlalchemy.orm import Session

from .._callables import returned_plainly
from .._driver.driver_connection import is_aborted
from .._transaction.commit_events import is_replaced
from .._transaction.commit_status import PendingVerification, verifier_for
from .._transaction.connection_state import loan_of
from .._transaction.lost_work import ended_elsewhere, unexpected_rollback
from .._transaction.write_evidence import has_written
from .dropped_work import dropped_work
from .state import CommitState, CommitWithdrawn
from .unit_session import UnitSession, unit_session_of

__all__ = [
    "accept_commit",
    "check_not_lost",
    "commit",
    "find_writes",
    "flush",
    "prepare_verification",
    "rollback",
    "send_commit",
]

log = logging.getLogger("unitwork")

_NOT_SENT, _SENT_BY_UNIT = CommitState.NOT_SENT, CommitState.SENT_BY_UNIT


def check_not_lost(session: Session) -> None:
    """Raise `UnexpectedRollbackError` if the server would answer with ROLLBACK.

    `CommitUnknownError` if a part of the work may be stored already.
    """
    unit_session = unit_session_of(session)
    if unit_session is None:
        return
    if unit_session.ends.savepoints is not None:
        unit_session.ends.savepoints.check()
    if unit_session.was_committed_by_connection or unit_session.was_replaced:
        failures = (x.failure for x in unit_session.loans if x.failure)
        raise ended_elsewhere() from next(failures, None)
    for connection in unit_session.connections:
        if connection.invalidated:  # lost, or cancelled in the middle of a statement
            states = unit_session.loans
            cause = next((x.failure for x in states if x.failure), None)
            raise unexpected_rollback(cause) from cause
        loan = loan_of(connection)
        if loan is None or (failure := loan.failure) is None:
            continue
        lost = loan.is_lost or not session.is_active
        if lost or is_aborted(connection):
            raise unexpected_rollback(failure) from failure
        if not loan.has_failed_late:  # or it is looked at again, before COMMIT
            loan.failure = None
    if unit_session.ends.by_connection:
        raise dropped_work("its transaction was ended through the connection")
    if not session.is_active:
        raise unexpected_rollback(None)


def flush(session: Session) -> None:
    """Do all of `commit()` that can fail before COMMIT is sent."""
    _flush(session, unit_session_of(session))


def _flush(session: Session, unit_session: UnitSession | None) -> None:
    if unit_session is not None:
        if unit_session.activity.is_under_way:
            raise IllegalStateChangeError("another task or thread uses the session")
        # What was added beside a COMMIT is in no transaction: nothing of it is lost.
        if session.in_transaction() and unit_session.may_be_lost:
            check_not_lost(session)
    session.flush()


def commit(session: Session) -> bool:
    """Flush and commit; return whether COMMIT was sent.

    It is not if nothing is open any more, or if the flush has registered a hook, or if
    the flush or a listener to SQLAlchemy's `before_commit` has requested a rollback.
    """
    unit_session: UnitSession | None = getattr(session, "unitwork_session", None)
    if unit_session is not None and not unit_session.has_work:
        return False  # another task or thread has ended it meanwhile
    _flush(session, unit_session)
    if unit_session is None:
        session.commit()
        return True
    if unit_session.owner.is_inside_a_retry:
        find_writes(session)
    unit_session.activity.reserve()
    if not unit_session.owner.begin_commit():
        unit_session.activity.is_reserved = False
        return False
    return send_commit(unit_session)


def send_commit(unit_session: UnitSession) -> bool:
    """Send COMMIT, for which all is ready; return `False` if it was not sent."""
    session = unit_session.sync_session
    for loan in unit_session.loans:
        if loan.wrote or loan.mark:
            prepare_verification(unit_session)
            break
    unit_session.commit_state = _SENT_BY_UNIT
    try:
        result: object = session.commit()  # type: ignore[func-returns-value]  # of an override
        if result is not None:
            _close(result)
        if session.in_transaction():  # an override has left it open
            Session.commit(session)
    except CommitWithdrawn:
        unit_session.commit_ended()
        return False
    if unit_session.ends.commit_undone:
        raise unexpected_rollback(None)
    unit_session.commit_state = _NOT_SENT  # as `commit_ended()`
    if unit_session.verifications:
        unit_session.verifications = []
    return True


def find_writes(session: Session) -> bool:
    """Whether the open transaction has written; by a query, if the database keeps that.

    So it is said to have if the driver has ended it, and another one is open. From then
    on the `UnitSession` knows it, too.
    """
    unit_session = unit_session_of(session)
    if unit_session is None:
        return False
    for connection in unit_session.connections:
        loan = loan_of(connection)
        if loan is not None and not loan.wrote:
            loan.wrote = has_written(connection, loan) or is_replaced(loan)
    return unit_session.may_have_written


def _close(result: object) -> None:
    """Close the *result* of an override, if it is a coroutine: nothing awaits it."""
    if inspect.iscoroutine(result):
        result.close()


def prepare_verification(unit_session: UnitSession) -> None:
    """Prepare, last before COMMIT, the verification of its outcome."""
    wanted = unit_session.settings.verify_commit if unit_session.owned else False
    for loan in unit_session.loans:
        if loan.wrote or loan.mark:
            break
    else:
        return
    for connection in unit_session.connections if wanted else ():
        known = loan_of(connection)
        if known is None or not (known.wrote or known.mark):
            continue
        verifier = verifier_for(connection, wanted)
        if verifier is None:
            continue
        mark = verifier.before_commit(connection)
        returned_plainly("before_commit() of a CommitVerifier", mark)
        if mark is not None:
            pending = PendingVerification(connection.engine, verifier, mark)
            unit_session.verifications.append(pending)


def accept_commit(session: Session) -> None:
    """End a transaction that was committed although COMMIT has failed. No I/O."""
    unit_session = unit_session_of(session)
    if unit_session is None:
        return
    session.expunge_all()  # its objects keep their state: a rollback would expire it
    for connection in unit_session.connections:
        with suppress(InvalidRequestError):  # closed meanwhile
            connection.invalidate()
    unit_session.commit_sent()  # so that the rollback is not reported as one
    rollback(session)
    unit_session.commit_ended()


def rollback(session: Session) -> bool:
    """Roll back; discard a connection that can't be. Raises only if cancelled.

    Return whether something was open: another task or thread may have ended it.
    """
    unit_session = unit_session_of(session)
    had_work = unit_session is None or unit_session.has_work
    try:
        _close(session.rollback())  # type: ignore[func-returns-value]  # of an override
        if session.in_transaction():  # an override has left it open
            Session.rollback(session)
    except IllegalStateChangeError:
        raise  # another task or thread is using the session just now
    except BaseException as error:
        Session.invalidate(session)  # not reported as the application's
        if not isinstance(error, Exception):
            raise
        log.warning("rollback failed; its connection is discarded", exc_info=error)
    return had_work
