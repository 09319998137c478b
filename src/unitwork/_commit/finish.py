"""The order of calls that ends a unit: `before_commit`, COMMIT or ROLLBACK, hooks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from sqlalchemy.exc import IllegalStateChangeError

from .._execution.accepted_commit import accept_commit
from .._execution.plan import Plan, Step
from .._session import operations
from .._session.override import check_not_taken
from .._session.state import CommitState, CommitWithdrawn
from .._session.unit_session import UnitSession
from .._transaction.lost_work import (
    commit_unknown,
    ended_elsewhere,
    partial_commit,
    unexpected_rollback,
)
from .._twophase.coordinator import commit_together, split
from .._twophase.participants import TwoPhaseCommit
from ..errors import CommitUnknownError, PartialCommitError, UnexpectedRollbackError
from ..outcome import Outcome
from .hook_calls import HookedUnit, call_after, call_before_commit
from .hooks import Hooks
from .in_doubt import is_in_doubt, query_outcome
from .made import Made
from .rollback import roll_back_session

__all__ = ["EndingUnit", "finish"]

log = logging.getLogger("unitwork")


class EndingUnit(HookedUnit, Protocol):
    """A unit whose end has begun, as `finish()` uses it."""

    hooks: Hooks | None

    @property
    def two_phase(self) -> TwoPhaseCommit | None: ...

    @property
    def unclear_commit(self) -> CommitUnknownError | PartialCommitError | None:
        """What a commit of the application's own has raised."""
        ...

    @property
    def must_roll_back(self) -> bool:
        """Whether a hook, the application or a failure forbids COMMIT."""
        ...

    @property
    def undone_because(self) -> str:
        """How the application has undone its last transaction; empty if it has not."""
        ...

    def sessions_to_end(self) -> list[UnitSession]:
        """Those with an open transaction, in the order of their commits."""
        ...

    def hooks_to_call(self) -> Hooks | None: ...

    def begin_commit(self) -> bool:
        """Return whether COMMIT may be sent; from then on nothing interrupts it."""
        ...

    def roll_back(self) -> None:
        """Start to roll back: the sessions refuse work from now on."""

    def settle(self, outcome: Outcome, error: BaseException | None) -> None:
        """Record the *outcome*; *error* is what made COMMIT fail."""


def finish(unit: EndingUnit, *, commit: bool, made: Made | None = None) -> Plan[bool]:
    """Commit or roll back what *unit* has open, then call its hooks.

    A COMMIT that was *made* is the first of its steps.

    Returns whether it was committed: a `before_commit` hook, or the flush of COMMIT,
    may have requested a rollback. Raises what COMMIT raises, after a rollback.
    Connections are back in the pool before the first `on_commit` hook runs.
    """
    return _Finish(unit).run(commit=commit, made=made)


class _Finish:
    """One ending of one unit."""

    __slots__ = ("_committed", "_pending", "_unit")

    def __init__(self, unit: EndingUnit) -> None:
        self._unit = unit
        self._pending: Sequence[UnitSession] = ()
        self._committed: list[UnitSession] = []
        """The sessions that have been committed, while others have not."""

    def run(self, *, commit: bool, made: Made | None) -> Plan[bool]:
        unit = self._unit
        try:
            committed = commit and (yield from self._commit(made))
        except BaseException as error:
            outcome = self._outcome_before or self._outcome_of(error)
            outcome = yield from self._roll_back(outcome, error)
            yield from self._call_hooks(outcome)
            lost = isinstance(error, UnexpectedRollbackError)
            if lost and outcome is Outcome.UNKNOWN:
                raise ended_elsewhere() from error
            raise
        if committed:
            undone = not self._pending and bool(unit.undone_because)
            unit.settle(Outcome.COMMITTED if self._pending else Outcome.EMPTY, None)
            if unit.hooks:
                outcome = Outcome.ROLLED_BACK if undone else Outcome.COMMITTED
                yield from self._call_hooks(outcome)
        else:
            outcome = yield from self._roll_back(self._outcome_before)
            undone = outcome is Outcome.EMPTY
            yield from self._call_hooks(Outcome.ROLLED_BACK if undone else outcome)
        return committed

    @property
    def _outcome_before(self) -> Outcome | None:
        """That of a transaction that the application has ended: it can't be undone."""
        if isinstance(self._unit.unclear_commit, PartialCommitError):
            return Outcome.PARTIAL
        if self._unit.unclear_commit is not None:
            return Outcome.UNKNOWN
        for session in self._unit.sessions_to_end():
            ended = any(loan.has_ended_elsewhere for loan in session.loans)
            if ended or session.was_committed_by_connection:
                return Outcome.UNKNOWN
        return None

    def _outcome_of(self, error: BaseException) -> Outcome:
        """The outcome of an ending that *error* has interrupted.

        Only a cancellation is left to classify here: `_commit_one()` has done the rest.
        """
        if self._committed or isinstance(error, PartialCommitError):
            return Outcome.PARTIAL
        sent = any(s.commit_state is CommitState.SENT_BY_UNIT for s in self._pending)
        cancelled = not isinstance(error, Exception)
        unclear = cancelled or isinstance(error, CommitUnknownError)
        return Outcome.UNKNOWN if sent and unclear else Outcome.ROLLED_BACK

    # COMMIT

    def _commit(self, made: Made | None) -> Plan[bool]:
        """Commit unless the unit must be rolled back; return whether it did."""
        unit = self._unit
        if made is not None:
            self._pending = [made.session]
            if (yield from self._commit_one(made.session, made)):
                return True
        while not unit.must_roll_back:
            hooks = unit.hooks_to_call() if unit.hooks else None
            if hooks is not None and hooks.before_commit:
                yield from self._call_before_commit(hooks)
                if self._unit.must_roll_back:  # a hook has requested it
                    break
            # The hooks may have begun transactions.
            self._pending = pending = unit.sessions_to_end()
            for session in pending:
                if not session.owned:
                    check_not_taken(session)
            if len(pending) == 1:
                sent = yield from self._commit_one(pending[0])
            else:
                sent = yield from self._commit_all(pending)
            if sent:
                return True
        return False

    def _call_before_commit(self, hooks: Hooks) -> Plan[None]:
        for session in self._unit.sessions_to_end():
            if session.may_be_lost:  # no hook is called for work that is lost
                yield Step(operations.check_not_lost, session)
        yield from call_before_commit(self._unit, hooks)

    def _commit_all(self, pending: Sequence[UnitSession]) -> Plan[bool]:
        for session in pending:  # let all that can fail do so before the first COMMIT
            yield Step(operations.flush, session)
        hooks = self._unit.hooks_to_call()
        if self._unit.must_roll_back or (hooks is not None and hooks.before_commit):
            return False  # requested or registered by the flush
        if self._unit.two_phase is None:
            return (yield from self._commit_in_order(pending))
        alone, participants = yield from split(pending, self._unit.two_phase)
        for session in alone:
            if not (yield from self._commit_one(session)):
                return False
        if participants:
            if not self._unit.begin_commit():
                return False
            if not (yield from commit_together(participants, self._committed)):
                return False
        for session in pending:
            session.commit_ended()
        return True

    def _commit_in_order(self, pending: Sequence[UnitSession]) -> Plan[bool]:
        for number, session in enumerate(pending):
            try:
                sent = yield from self._commit_one(session)
                if not sent and self._committed:
                    raise CommitWithdrawn
            except Exception as error:
                if not self._committed:
                    raise
                rest = [each.name for each in pending[number:]]
                unknown = rest[:1] if isinstance(error, CommitUnknownError) else []
                raise partial_commit(
                    [each.name for each in self._committed],
                    rolled_back=rest[len(unknown) :],
                    unknown=unknown,
                ) from (error.__cause__ if unknown else error)
            if not sent:
                return False
            self._committed.append(session)
        return True

    def _commit_one(self, session: UnitSession, made: Made | None = None) -> Plan[bool]:
        """Commit one session; if COMMIT is not acknowledged, query the database."""
        limit = session.settings.commit_timeout
        sent: bool
        try:
            # It was not made if another task or thread used the session just then.
            if made is None or isinstance(made.error, IllegalStateChangeError):
                sent = yield Step(operations.commit, session, limit)
            else:
                sent = made.take()
        except Exception as error:
            committed: bool | None = session.is_committed
            if not committed:
                if not is_in_doubt(session, error):
                    raise
                committed = yield from query_outcome(session)
            if committed is None:
                if isinstance(error, CommitUnknownError):
                    raise
                raise commit_unknown() from error
            session.commit_ended()
            if not committed and isinstance(error, CommitUnknownError):
                raise unexpected_rollback(error) from error
            if not committed:
                raise
            log.warning("COMMIT failed, but the database has committed", exc_info=error)
            yield from accept_commit(session)
            sent = True
        return sent

    # ROLLBACK

    def _roll_back(
        self, outcome: Outcome | None = None, error: BaseException | None = None
    ) -> Plan[Outcome]:
        """Roll back what is open; return the outcome, which may be known before."""
        self._unit.roll_back()
        sessions = self._unit.sessions_to_end()
        found = outcome or (Outcome.ROLLED_BACK if sessions else Outcome.EMPTY)
        undone = False
        try:
            for each in sessions:
                undone = (yield from roll_back_session(each)) or undone
            if outcome is None and not undone:
                found = Outcome.EMPTY
        finally:
            try:
                found = self._outcome_now(found, sessions)
            finally:  # whatever happens: what waits for the end would wait forever
                for session in self._pending:
                    session.commit_ended()
                self._unit.settle(found, error)
        return found

    def _outcome_now(self, found: Outcome, sessions: Sequence[UnitSession]) -> Outcome:
        """The outcome once ROLLBACK was answered; it may have come too late."""
        # A task that was waited for may have sent a COMMIT that failed.
        if self._unit.unclear_commit is not None:
            return self._outcome_before or found
        stored = any(session.may_be_stored for session in sessions)
        return Outcome.UNKNOWN if stored and found is Outcome.ROLLED_BACK else found

    # Hooks

    def _call_hooks(self, outcome: Outcome) -> Plan[None]:
        hooks = self._unit.hooks_to_call()
        if hooks:
            yield from call_after(self._unit, hooks, outcome)
