"""A unit of work: the sessions, hooks and decision of one piece of work."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from weakref import ReferenceType

from sqlalchemy.orm import SessionTransaction

from .._commit.hooks import Hooks
from .._commit.in_doubt import query_outcome_now
from .._driver.sqlalchemy_internals import has_pending
from .._engine.begin import STATEMENT, TRANSACTION, TransactionCharacteristics
from .._observing.registry import observing
from .._observing.unit_report import UnitReport
from .._session.database_core import DatabaseCore
from .._session.unit_session import UnitSession
from .._twophase.participants import TwoPhaseCommit
from ..errors import DeadlineExceededError, UnexpectedRollbackError
from ..options import NO_OPTIONS, TransactionOptions
from ..outcome import Outcome
from .attempts import Attempt
from .decision import UNDECIDED, Intent
from .lifecycle import Lifecycle
from .owner import UnitOwner
from .positions import SeesWrites
from .reporting import close_reported, open_report, report_without_ending
from .sessions import Sessions, check_not_blocked
from .slow_units import report_if_slow
from .state import UnitState

__all__ = ["Unit"]

_CLOSED = UnitState.CLOSED
_DEFAULTS = TransactionCharacteristics()
_NO_OWNER = UnitOwner()
_STORED = (Outcome.COMMITTED, Outcome.UNKNOWN, Outcome.PARTIAL)  # or a part


class Unit(Lifecycle, SeesWrites):
    """The sessions, hooks and decision of one piece of work.

    Belongs to its *owner*, a request, a WebSocket or a block, and covers *databases*,
    by the names that its owner gives them. Used by the tasks and threads of its owner,
    one at a time.
    """

    hooks: Hooks | None
    kept_open: Collection[UnitSession] = ()  # a response streams from them
    facade: ReferenceType[object] | None = None
    is_sync = False  # whether it is that of a sync block
    report: UnitReport | None = None  # if one of its databases is observed

    def __init__(
        self,
        databases: Mapping[str, DatabaseCore],
        owner: UnitOwner,
        parent: Unit | None = None,
        attempt: Attempt | None = None,
    ) -> None:
        super().__init__(attempt)
        self.hooks = None
        self.databases, self.owner, self.parent = databases, owner, parent
        self.own_options: TransactionOptions = NO_OPTIONS
        self.two_phase: TwoPhaseCommit | None = None
        # If no option says whether it may write; and whether its last transaction was
        # expected to.
        self.expects_writes = self._writes = True
        self.sessions = Sessions()
        if observing.is_on:
            self.report = open_report(self, None if parent is None else parent.report)

    # Enclosing units

    def open_unit(self) -> Unit:
        return self

    def outwards(self) -> Iterator[Unit]:
        """Yield this unit and those that enclose it."""
        unit: Unit | None = self
        while unit is not None:
            yield unit
            unit = unit.parent

    @property
    def keyword(self) -> str:
        is_async = any(each.is_async for each in self.databases.values())
        return "async with" if is_async or not self.databases else "with"

    def covers(self, database: DatabaseCore) -> bool:
        return database in self.databases.values()

    # Sessions

    def session_of(self, database: DatabaseCore) -> UnitSession:
        """The session of *database*, made on first use."""
        if self.state is _CLOSED:
            self.check_open()
        self.owner.session_requested()
        session = self.sessions.by_database.get(database)
        if session is None:
            if self.parent is not None:
                check_not_blocked(self, database)
            session = self.sessions.open(database, self)
        return session

    @property
    def needs_ending(self) -> bool:
        """Whether an ending does more than close the sessions."""
        for each in self.sessions.by_database.values():
            sync = each.sync_session  # as `has_work`, which would be one call more
            if sync.in_transaction() or has_pending(sync) or each.ends.rolled_back:
                return True
        if self.hooks or self.known_blocks or self.cut_off_by is not None:
            return True
        if self.decision is UNDECIDED:
            return False
        # Lost with nothing open, or beside COMMIT: it is no success.
        is_lost = self.decision.intent is Intent.LOST
        return is_lost and self.outcome in (None, Outcome.COMMITTED)

    def sessions_to_end(self) -> list[UnitSession]:
        return self.sessions.to_end(self.databases, kept_open=self.kept_open)

    @property
    def hooks_until(self) -> float | None:
        return self.owner.deadline_ends_at

    # Options and attempts

    @property
    def options(self) -> TransactionOptions:
        """The options in force: its own, its route's, its application's."""
        return self.owner.find_options(self.own_options)

    @property
    def may_write(self) -> bool:
        read_only = self.options.read_only
        return self.expects_writes if read_only is None else not read_only

    @property
    def may_be_retried(self) -> bool:
        """Whether a retryable failure would lead to a retry."""
        limit = self.options.attempts or 1
        return self.attempt.number < limit and self.is_repeatable

    @property
    def is_repeatable(self) -> bool:
        """Whether nothing has been done in it that must not be done twice."""
        forbidden = self.attempt.not_repeatable_because is not None
        return not forbidden and self.owner.allows_another_attempt()

    @property
    def is_in_a_retry(self) -> bool:
        """Whether it, or an enclosing unit, is retried: nested work alone is not."""
        itself = self.is_open and self.is_repeatable
        return (itself and (self.options.attempts or 1) > 1) or self.is_inside_a_retry

    @property
    def is_inside_a_retry(self) -> bool:
        return self.parent is not None and self.parent.is_in_a_retry

    def forbid_retry(self, reason: str, *, itself: bool = True) -> None:
        """Forbid to retry the enclosing units, and *itself*."""
        for unit in self.outwards():
            # What its on_rollback hooks do is no part of an enclosing unit.
            if (unit is self and itself) or (unit is not self and unit.is_at_work):
                unit.attempt.forbid_another(reason)
                unit.owner.retry_forbidden()

    # State

    def begin_ending(self, *, keep_streams_open: bool = False) -> bool:
        """Take the turn to end it, but for sessions that a response streams from."""
        if not super().begin_ending():
            return False
        self.kept_open = self.sessions.streaming() if keep_streams_open else ()
        return True

    def cut_off(self, error: UnexpectedRollbackError | DeadlineExceededError) -> bool:
        """Force a rollback, and refuse more work; `False` if it is too late."""
        is_cut_off = super().cut_off(error)
        if is_cut_off and self.state is UnitState.OPEN:  # else it may still flush
            self.sessions.refuse()
        return is_cut_off

    def roll_back(self) -> None:
        self.move(UnitState.ROLLING_BACK)
        self.sessions.refuse()

    def settle(self, outcome: Outcome, error: BaseException | None) -> None:
        """Record the *outcome*, and refuse the sessions to the hooks that follow."""
        if self.hooks and outcome is not Outcome.EMPTY and self.kept_open:
            self.hooks.outcome_known(outcome)
        self.record(outcome, error)
        self.rollback_was_requested = self.decision.requests_rollback
        self.undone_because = ""
        self.record_writes(outcome)
        stored = outcome in _STORED and self.parent is not None
        if stored and (self.two_phase or self.sessions.may_have_written):
            self.forbid_retry("a unit inside has committed", itself=False)
        self.move(UnitState.SETTLED)
        self.sessions.refuse()
        self.owner.unit_settled()
        if self.two_phase is not None:
            self.two_phase.renew()

    def reopen_sessions(self) -> None:
        """Let the sessions work again: in a response's body, for the next message."""
        if self.cut_off_by is None and self.state is not _CLOSED:
            self.sessions.reopen()

    def start_afresh(self) -> None:
        """Forget the decision and reopen the sessions, for the next message."""
        if self.cut_off_by is None:
            self.forget_decision()
        self.reopen_sessions()

    def close(self) -> None:
        """Close the sessions, and drop every reference.

        An asyncio transport keeps the context in which it was created, and with it this
        unit, for as long as the pooled connection lives.
        """
        if not self.end_turn(_CLOSED):
            return
        if self.outcome is None:
            self.record_without_ending()
            report_without_ending(self)
        self.hooks = None
        if self.sessions.are_timed:
            report_if_slow(self)
        if self.report is None:
            self.sessions.close(self)
        else:
            close_reported(self, self.report)
        self.keep_given()
        self.owner = _NO_OWNER  # which may lead back to here

    def hooks_to_call(self) -> Hooks | None:
        """Its hooks; not yet while a response streams from its transaction."""
        return None if self.hooks and self.kept_open else self.hooks

    # `SessionOwner`, for its sessions

    def characteristics(
        self, session: UnitSession
    ) -> TransactionCharacteristics | None:
        options = self.owner.find_options(self.own_options)
        read_only = options.read_only
        self._writes = self.expects_writes if read_only is None else not read_only
        is_default = options is NO_OPTIONS and not session.releases_reads
        if is_default and not session.defers_write_lock:
            return None
        default = STATEMENT if session.releases_reads else TRANSACTION
        found = options.characteristics_of(None if self.two_phase else default)
        if session.defers_write_lock and not self._writes:
            found = found._replace(deferred=True)
        return None if found == _DEFAULTS else found

    def identifies_transactions(self, session: UnitSession) -> bool:
        return self._writes and self.two_phase is None

    settle_commit = staticmethod(query_outcome_now)

    def begin_commit(self) -> bool:
        if self.hooks is not None and self.state is UnitState.ENDING:
            hooks = self.hooks_to_call()
            if hooks is not None and hooks.before_commit:
                return False  # registered by the flush
        return super().begin_commit()

    @property
    def withdraws_commit(self) -> bool:
        if self.decision is UNDECIDED or not self.must_roll_back:
            return False
        return not any(session.is_committed for session in self.sessions)

    def user_committed(self, session: UnitSession) -> None:
        self.committed_by_user, self.undone_because = True, ""
        self.forbid_retry("session.commit() was called")
        if self.hooks is not None:
            others = self.sessions.transactions_beside(session)
            self.hooks.transaction_committed(session.sync_session, others)

    def user_commit_failed(self) -> None:
        self.forbid_retry("work went on after a session.commit() that failed")

    def read_on(self) -> None:
        self.undone_because = ""  # as if a transaction had begun since

    def rolled_back(self, transaction: SessionTransaction) -> None:
        if transaction.nested:
            self.savepoint_undone(transaction)
        elif not self.is_ending_itself:
            self.undone_because = "session.rollback() was called"
            if self.hooks is not None:
                self.hooks.transaction_undone(transaction)
