"""The commonest ending of a unit: one session is committed, and nothing follows.

For that the plans of `endings` cost more than the COMMIT itself: a task of its own, a
generator at each of their levels, and questions whose answers are known before.
`tests/commit/test_direct_endings.py` compares both: whatever fails, they make the same
steps, and their outcome is the same.
"""

from __future__ import annotations

from functools import partial
from math import inf

from .._commit.observation import observation
from .._concurrency.uncancelled import Uncancelled
from .._session import operations
from .._session.commit_step import make_commit_step
from .._session.direct_commit import Readiness, readiness_of
from .._session.unit_session import UnitSession
from ..outcome import Outcome
from .decision import UNDECIDED
from .lifecycle import Lifecycle
from .running import patience_of
from .state import UnitState
from .unit import Unit

__all__ = ["DirectEnding", "begin_directly", "settle_directly"]

_OPEN = UnitState.OPEN
_COMMITTING = UnitState.COMMITTING
_SETTLED = UnitState.SETTLED
_COMMITTED = Outcome.COMMITTED
_EMPTY = Outcome.EMPTY
_COMMIT = Readiness.COMMIT
_MORE = Readiness.MORE


DirectEnding = tuple[UnitSession, Uncancelled]
"""One that has begun: the COMMIT of the session is to be awaited at once.

It returns whether that was sent.
"""


def begin_directly(unit: Unit) -> DirectEnding | None:
    """Begin to end *unit*; `None` if there is more to do than to commit one session.

    The state ENDING is passed over if nothing would be done in it.
    """
    if (
        unit.decision is not UNDECIDED
        or unit.hooks
        or unit.known_blocks is not None
        or unit.parent is not None
        or unit.two_phase is not None
        or unit.report is not None
        or unit.kept_open
        or unit.sessions.are_timed
        or observation.observer is not None
    ):
        return None
    sessions = unit.sessions.by_database
    if len(sessions) != 1:
        return None
    (session,) = sessions.values()
    readiness = readiness_of(session)
    if readiness is _MORE or not Lifecycle.begin_ending(unit):
        return None
    if readiness is _COMMIT:
        unit.state = _COMMITTING  # as `begin_commit()` does
        session.activity.is_reserved = True
        step = make_commit_step(session, operations.send_commit, session)
    else:
        step = make_commit_step(session, operations.commit, session.sync_session)
    limit = session.settings.commit_timeout
    committing = Uncancelled(
        step,
        inf if limit is None else limit,
        session.abort_connections,
        partial(patience_of, unit),
    )
    return session, committing


def settle_directly(unit: Unit, session: UnitSession, reason: str) -> bool:
    """Record that it is committed; `False` if more is to be done after all.

    Its session may go on at once: nothing runs in between.
    """
    if unit.hooks:  # registered meanwhile
        return False
    if unit.outcome is None or unit.outcome is _EMPTY:
        unit.outcome, unit.reason = _COMMITTED, reason
    unit.undone_because = ""
    requested = unit.decision.requested  # as `requests_rollback`
    unit.rollback_was_requested = requested is not None and not requested.commit
    session.activity.is_reserved = False
    if session.permit is not None:
        session.release_unused_permit()
    unit.state = _SETTLED  # as `move()` does
    unit.end_turn(_OPEN)
    return True
