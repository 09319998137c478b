"""The life of a unit of work: its state, what is decided about it, its outcome."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from threading import RLock

from .._concurrency.fork import renew_after_fork
from .._transaction.lost_work import ended_elsewhere, no_commit, unexpected_rollback
from ..errors import (
    CommitUnknownError,
    DeadlineExceededError,
    PartialCommitError,
    SessionEndedError,
    UnexpectedRollbackError,
    UnitworkError,
)
from ..outcome import Outcome, Verdict
from .attempts import Attempt
from .decision import UNDECIDED, Decision, Intent
from .generator_block import GeneratorBlock
from .inner_blocks import HasInnerBlocks
from .state import NEXT_STATES, IllegalMove, UnitState

__all__ = ["Lifecycle"]

_OPEN, _ENDING, _CLOSED = UnitState.OPEN, UnitState.ENDING, UnitState.CLOSED
_NOT_BEGUN = "no transaction was begun"
_BY_USER = "session.commit() was called"

_moving = renew_after_fork(RLock())
"""For all units: two threads may begin to end the same one at the same moment."""


class Lifecycle(HasInnerBlocks):
    """The state, decision and outcome of one unit. Only `move()` changes the state.

    `begin_ending()`, `next_turn()` and `close()` may be called by any task or thread.
    What few units change is in the class. The rest is not, as Python is slow to find an
    attribute that both the class and the object have.
    """

    state: UnitState
    decision: Decision
    cut_off_by: UnexpectedRollbackError | DeadlineExceededError | None = None
    """Why all further work is refused: the deadline, or the shutdown."""
    rollback_was_requested: bool  # when it was settled
    verdict: Verdict | None = None  # of the ending that is under way
    end_error: BaseException | None = None  # that made the present or last ending fail
    outcome: Outcome | None
    reason: str
    committed_by_user = False
    undone_because: str  # how the application has undone its last transaction
    generator_block: GeneratorBlock | None = None  # in which its block was entered
    in_hook = was_cancelled = False
    unclear_commit: CommitUnknownError | PartialCommitError | None = None
    """What a commit of the application's own has raised."""
    known_attempt: Attempt | None  # its owner's, or made on first use
    _waiting: deque[Future[None]] | None

    def __init__(self, attempt: Attempt | None = None) -> None:
        self.state, self.decision = _OPEN, UNDECIDED
        self.outcome = self._waiting = None
        self.reason = self.undone_because = ""
        self.rollback_was_requested = False
        self.known_attempt = attempt

    @property
    def is_open(self) -> bool:
        return self.state is not UnitState.CLOSED

    @property
    def is_ending(self) -> bool:
        """Whether an ending is under way: only that ending moves the state."""
        return self.state not in (UnitState.OPEN, UnitState.CLOSED)

    @property
    def is_ending_itself(self) -> bool:
        """Whether what ends now is no rollback of the application's."""
        ours = self.state in (UnitState.COMMITTING, UnitState.ROLLING_BACK)
        return ours or self.unclear_commit is not None

    @property
    def is_at_work(self) -> bool:
        """Whether work done now is a part of it: its outcome is not known yet."""
        return self.state in (UnitState.OPEN, UnitState.ENDING, UnitState.COMMITTING)

    @property
    def keyword(self) -> str:
        """What opens a block of the same kind."""
        return "async with"

    def check_open(self) -> None:
        if self.state is UnitState.CLOSED:
            raise SessionEndedError(
                f"this unit of work has ended ({self.describe_end()}). For work after "
                "the response (a background task, a task of your own) open a unit of "
                f"its own: `{self.keyword} db.transaction() as session:`"
            )

    def describe_end(self) -> str:
        """The outcome and its reason, or the state before they are known."""
        if self.outcome is None:
            return self.state.label
        return f"{self.outcome.value}: {self.reason}"

    # State

    def move(self, state: UnitState) -> None:
        if state not in NEXT_STATES[self.state]:
            raise IllegalMove(
                f"a unit of work that is {self.state.label} can't be {state.label}"
            )
        self.state = state

    def begin_ending(self) -> bool:
        """Take the turn to end it; `False` if another ending has it, or it is over."""
        _moving.acquire()  # `with` would cost more than all that is done here
        has_turn = self.state is _OPEN
        if has_turn:
            self.state = _ENDING  # as `move()` does
        _moving.release()
        return has_turn

    def begin_commit(self) -> bool:
        """Move to COMMITTING before COMMIT is sent; `False` if it must roll back."""
        if self.state is UnitState.COMMITTING:
            return True  # of several sessions the first has moved it
        with _moving:
            if self.decision is not UNDECIDED and self.must_roll_back:
                return False
            blocks = self.known_blocks
            if blocks is not None and (late := blocks.late_error()) is not None:
                self.lose(late)
                return False
            self.move(UnitState.COMMITTING)
        return True

    def cut_off(self, error: UnexpectedRollbackError | DeadlineExceededError) -> bool:
        """Force a rollback; return `False` if it is too late for that."""
        with _moving:
            if self.state not in (UnitState.OPEN, UnitState.ENDING):
                return False
            self.decision = self.decision.raised(Intent.LOST, str(error))
            self.cut_off_by = error
        return True

    def next_turn(self) -> Future[None]:
        """Return a future that completes when the ending that is under way is over."""
        turn: Future[None] = Future()
        with _moving:
            if self.state in (UnitState.OPEN, UnitState.CLOSED):
                turn.set_result(None)
            else:
                self._waiting = self._waiting or deque()
                self._waiting.append(turn)
        return turn

    def end_turn(self, state: UnitState) -> bool:
        """Finish the ending; return `False` if the unit was closed before."""
        _moving.acquire()  # as `begin_ending()` does
        try:
            if self.state is _CLOSED:
                return False
            if state not in NEXT_STATES[self.state]:
                self.move(state)  # which raises
            self.state = state
            waiting, self._waiting = self._waiting, None
            if self.known_blocks is not None:
                self.known_blocks.end_answered()
        finally:
            _moving.release()
        for turn in waiting or ():
            if turn.set_running_or_notify_cancel():
                turn.set_result(None)
        return True

    @property
    def attempt(self) -> Attempt:
        """The attempt at its work: its owner's, or the only one."""
        with _moving:
            self.known_attempt = self.known_attempt or Attempt()
        return self.known_attempt

    # Decision

    @property
    def must_roll_back(self) -> bool:
        return self.decision.intent >= Intent.ROLLBACK_ONLY

    def request_rollback(self, reason: str) -> None:
        """Record that the application wants a rollback: it is not unexpected then."""
        with _moving:
            self.decision = self.decision.requesting(Verdict(False, reason))

    def request_commit(self) -> None:
        """Record that the application wants a commit, whatever the response is."""
        with _moving:
            self.decision = self.decision.requesting(Verdict(True, "commit_anyway()"))

    def lose(self, error: BaseException) -> None:
        """Record that *error*, which is not raised any further, lost the work."""
        dropped = isinstance(error, UnexpectedRollbackError)
        reason = "its work was dropped" if dropped else "an error was swallowed"
        with _moving:
            self.decision = self.decision.raised(Intent.LOST, reason, error)

    def commit_unclear(self, error: CommitUnknownError | PartialCommitError) -> None:
        """Record that the application's own commit has ended with *error*."""
        self.unclear_commit = error
        with _moving:
            self.decision = self.decision.raised(Intent.LOST, str(error))

    def forget_decision(self) -> None:
        """Let the next message decide for itself."""
        self.decision, self.unclear_commit = UNDECIDED, None

    def check_commit(self) -> None:
        intent, reason, *_ = self.decision
        if intent is Intent.LOST:
            raise self.unexpected()
        if intent is Intent.ROLLBACK_ONLY:
            raise no_commit(reason)
        if self.known_blocks is not None:
            self.known_blocks.check_commit()

    def unexpected(self) -> UnitworkError:
        """The error to raise in place of the success that was expected."""
        if self.unclear_commit is not None:
            return self.unclear_commit
        if self.cut_off_by is not None:
            return self.cut_off_by
        if self.outcome is Outcome.UNKNOWN:
            return ended_elsewhere()
        failure = self.decision.failure
        if isinstance(failure, UnexpectedRollbackError):
            return failure
        return unexpected_rollback(failure)

    @property
    def upcoming_error(self) -> Exception | None:
        """What an ending that has settled raises once its hooks have run."""
        if isinstance(self.end_error, Exception):
            return self.end_error
        commits = self.verdict is not None and self.verdict.commit
        lost = commits and self.outcome in (Outcome.ROLLED_BACK, Outcome.UNKNOWN)
        return self.unexpected() if lost and not self.rollback_was_requested else None

    # Outcome

    def record(self, outcome: Outcome, error: BaseException | None) -> None:
        """Record the outcome once: the response has already reported it."""
        self.end_error = error
        if self.outcome not in (None, Outcome.EMPTY):
            return
        if outcome is Outcome.EMPTY and error is None:
            self.record_without_ending()
            return
        self.outcome, verdict = outcome, self.verdict or Verdict(False, "")
        self.reason = verdict.reason
        error = self.unclear_commit or error
        if isinstance(error, PartialCommitError):
            self.reason = str(error)
        elif error is not None:
            self.reason = f"COMMIT failed: {type(error).__name__}"
        elif outcome is Outcome.ROLLED_BACK and verdict.commit:
            self.reason = self.decision.reason_of_rollback

    def record_without_ending(self) -> None:
        """Record that nothing was open: empty, or ended by the application."""
        if self.undone_because:
            self.outcome, self.reason = Outcome.ROLLED_BACK, self.undone_because
            return
        by_user = self.committed_by_user
        self.outcome = Outcome.COMMITTED if by_user else Outcome.EMPTY
        self.reason = _BY_USER if by_user else _NOT_BEGUN
