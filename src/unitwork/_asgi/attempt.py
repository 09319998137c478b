"""One attempt at an HTTP request: its response's state, its deadline, its retries."""

from __future__ import annotations

import asyncio

from .._concurrency.deadline import Deadline
from .._unit.endings import note_commits
from .._unit.state import IllegalMove
from .._unit.unit import Unit
from ..errors import DeadlineExceededError
from ..options import NO_OPTIONS, TransactionOptions
from ..outcome import Outcome
from .body import Recording, is_kept, replayed
from .connection import Connection
from .exception_handlers import answer
from .replay import Snapshot
from .retry import Retries
from .state import NEXT_STATES, ResponseState
from .types import Message, Receive, Scope, Send

__all__ = ["RequestAttempt", "nothing_more"]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, 9.2.1
_UNDONE = (None, Outcome.ROLLED_BACK, Outcome.EMPTY)


class RequestAttempt(Connection):
    """One attempt at one request. Only `move()` changes the state of its response."""

    __slots__ = (
        "body",
        "client_has_left",
        "deadline",
        "exception_at_start",
        "exception_before",
        "failure",
        "receive_from_server",
        "response",
        "retries",
        "snapshot",
        "task",
    )

    body: Message | Recording | None
    client_has_left: bool
    deadline: Deadline | None
    exception_at_start: BaseException | None
    exception_before: BaseException | None
    failure: Exception | None
    """What the client gets in place of the response."""
    receive_from_server: Receive
    response: ResponseState
    retries: Retries | None
    """Set once the request has been run again, or is going to be."""
    snapshot: Snapshot
    task: asyncio.Task[object] | None
    """The one that runs the application."""

    def move(self, state: ResponseState) -> None:
        if state not in NEXT_STATES[self.response]:
            raise IllegalMove(
                f"a response that is {self.response.name} can't be {state.name}"
            )
        self.response = state

    @property
    def handled_exception(self) -> BaseException | None:
        """The exception that a handler has made into the response."""
        error = self.exception_at_start
        return None if error is self.exception_before else error

    # An error in place of the response

    @property
    def is_to_be_retried(self) -> bool:
        return self.response is ResponseState.RETRY

    async def answer_failure(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application's handlers answer, if there is an error to answer."""
        if self.failure is None:
            return
        cut_short = self.response is ResponseState.CUT_SHORT
        error, receive = self.take_failure(receive)
        if cut_short:
            raise error
        await answer(error, scope, receive, send)

    def take_failure(self, receive: Receive) -> tuple[Exception, Receive]:
        """Give the error, and a *receive* that begins with the body that was read."""
        error, body = self.failure, self.body
        assert error is not None
        self.failure = self.body = None
        return error, replayed(body, receive, self.config.retry.body_limit)

    # Retries

    def is_retried(self, error: BaseException | None) -> bool:
        """Decide whether the request is run again, before it is rolled back.

        Because of *error*, or of what the application made something else of: a
        response, an exception of its own.
        """
        unit = self.unit
        if unit is None:
            if (self.find_options(NO_OPTIONS).attempts or 1) == 1:
                return False
            unit = self.open_unit()
        note_commits(unit, error)
        if self.response is not ResponseState.WAITING or not unit.may_be_retried:
            return False
        states = [x for session in unit.sessions for x in session.connection_states]
        policy = self.config.retry
        found = policy.retryable(error, *(state.failure for state in states))
        if found is None:
            return False
        if self.retries is None:
            self.retries = Retries(
                policy,
                unit.options.attempts or 1,
                snapshot=self.snapshot,
                receive=self.receive_from_server,
                client_has_left=self.client_has_left,
                deadline=self.deadline,
            )
        if not self.retries.tries.next():
            return False
        self.failure = error if isinstance(error, Exception) else found
        self.move(ResponseState.RETRY)
        return True

    def note_attempts(self, error: BaseException) -> None:
        if self.retries is not None:
            self.retries.tries.note(error)

    # What its unit asks: see `UnitOwner`

    @property
    def attempt(self) -> int:
        return 1 if self.retries is None else self.retries.tries.attempt

    @property
    def is_over(self) -> bool:
        left = self.receive_from_server is nothing_more
        return left or self.response is ResponseState.COMPLETE

    def may_write(self, options: TransactionOptions) -> bool:
        if options.read_only is None:
            return self.scope["method"] not in _SAFE_METHODS
        return not options.read_only

    def allows_another_attempt(self, unit: Unit) -> bool:
        if self.response.has_started or unit.outcome not in _UNDONE:
            return False
        if not is_kept(self.body, self.config.retry.body_limit):
            return False
        # Inside a unit that is itself run again both would count.
        return unit.parent is None or not unit.parent.is_in_a_retry

    def retry_forbidden(self) -> None:
        if self.response is ResponseState.RETRY:
            self.move(ResponseState.REPLACED)

    def session_requested(self, unit: Unit) -> None:
        limit = unit.options.deadline
        if limit is not None and self.deadline is None:
            self.watch(Deadline(limit))

    # The deadline

    def stop_deadline(self) -> bool:
        """Stop it; say whether it, and nothing else, has cancelled the task."""
        if self.deadline is None or self.task is None:
            return False
        return self.deadline.stop(self.task)

    def watch(self, deadline: Deadline) -> None:
        self.deadline = deadline
        if self.task is not None:
            deadline.watch(self.task, self._expire)

    def _expire(self) -> bool | None:
        """Give up, as the deadline has passed; but what is committed stands."""
        if self.response not in (ResponseState.WAITING, ResponseState.RETRY):
            return False
        unit = self.open_unit()
        if unit.outcome not in (None, Outcome.EMPTY):
            return False
        sessions = unit.sessions_to_end()
        if any(session.user_commit_pending for session in sessions):
            return None
        assert self.deadline is not None
        undone = "what it had not committed by hand" if unit.committed_by_user else "it"
        error = DeadlineExceededError(
            f"the request was not done within {self.deadline.limit:g} seconds, its "
            f"deadline; {undone} was rolled back"
        )
        if not unit.cut_off(error):
            return False
        self.failure = error
        self.move(ResponseState.REPLACED)
        for session in sessions:
            if not session.is_async and session.in_statement:
                session.abort_connections()  # nothing else could stop its thread
        return True


async def nothing_more() -> Message:
    """Stand in for `receive` once the exchange is over."""
    return {"type": "http.disconnect"}
