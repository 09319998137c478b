"""One attempt at an HTTP request: its deadline, and whether it is retried."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import NoReturn

from .._concurrency.deadline import Deadline
from .._execution.plan import Plan
from .._unit import endings
from .._unit.attempts import attempt_of, take_next
from .._unit.committed_inside import stored_by, with_stored
from .._unit.error_notes import explain
from .._unit.running import run_ending
from .._unit.unit import Unit
from ..options import NO_OPTIONS, route_retries
from ..outcome import Outcome
from .body import NOT_KEPT, is_kept, record
from .exception_handlers import Failure
from .expiry import expire
from .replay import Snapshot
from .response import ReplaceableResponse, Unwind
from .retry import Retries
from .route_options import is_endpoint
from .state import NO_STATE, ResponseState
from .types import Message

__all__ = ["RequestAttempt"]

_STARTED, _COMPLETE = ResponseState.STARTED, ResponseState.COMPLETE
_UNDONE = (None, Outcome.ROLLED_BACK, Outcome.EMPTY)


class RequestAttempt(ReplaceableResponse):
    """One attempt at one request."""

    deadline: Deadline | None = None
    retries: Retries | None
    """Set once the request has been run again, or is going to be."""
    snapshot: Snapshot | None
    """What another attempt begins with; `None` if there will be none.

    Taken before the application runs, as soon as some route has attempts: which
    one the request is for is not known yet.
    """

    def follow(self, retries: Retries) -> None:
        """Be the next attempt of an earlier exchange."""
        self.retries = retries
        self.snapshot = retries.snapshot
        self.attempt = attempt_of(retries.tries)
        if retries.deadline is not None:
            self.watch(retries.deadline)

    # How it ends

    @property
    def is_to_be_retried(self) -> bool:
        return self.response is ResponseState.RETRY

    def is_replaced_after(self, error: BaseException) -> bool:
        """Whether the client gets another error in place of *error*, which escapes.

        Decided before the rollback, after which nothing of the transaction is known.
        """
        explain(error, self.unit)
        ours = self.stop_deadline()
        if self.response < ResponseState.REPLACED:
            if isinstance(error, Exception) and self.is_retried(error):
                return True
            self.note_attempts(error)
            return self.answers_itself(error)
        if isinstance(error, asyncio.CancelledError):
            return ours
        # Otherwise the process was to exit while the application was unwound.
        return isinstance(error, Exception | Unwind | BaseExceptionGroup)

    def replace_response(self, error: Exception) -> NoReturn:
        if self.response >= ResponseState.REPLACED:
            raise Unwind from error  # the deadline was first
        if not self.is_retried(error):
            self.note_attempts(error)
            error = with_stored(error, self.open_unit(), self.committed_inside)
            self.failure = Failure(error)
            started = self.response.has_started
            self.move(ResponseState.CUT_SHORT if started else ResponseState.REPLACED)
        raise Unwind from error

    async def run_ending(self, unit: Unit, ending: Plan[None]) -> None:
        """Run *ending*; raise `Unwind` if the client gets its error instead."""
        try:
            await run_ending(unit, ending)
        except Exception as error:
            self.replace_response(error)
        except asyncio.CancelledError as error:
            self.unwind_if_client_left(unit, error)
            raise

    async def roll_back(self, unit: Unit, reason: str) -> None:
        await self.run_ending(unit, endings.roll_back(unit, reason))

    # Retries

    def is_retried(self, error: BaseException | None) -> bool:
        """Decide whether the request is run again, before it is rolled back.

        Because of *error*, or of an error that the application has replaced by a
        response or by another exception.
        """
        unit = self.unit
        if unit is None:
            if (self.find_options(NO_OPTIONS).attempts or 1) == 1:
                return False
            unit = self.open_unit()
        endings.note_commits(unit, error)
        may_be = unit.may_be_retried or (unit.replica_failure and unit.is_repeatable)
        if self.response is not ResponseState.WAITING or not may_be:
            return False
        loans = [x for session in unit.sessions for x in session.loans]
        policy = self.config.retry
        failures = (loan.failure for loan in loans)
        found = unit.replica_failure or policy.retryable(error, *failures)
        if found is None:
            return False
        if self.retries is None:
            assert self.snapshot is not None
            self.retries = Retries(
                policy,
                unit.options.attempts or 1,
                snapshot=self.snapshot,
                receive=self.receive_from_server,
                client_has_left=self.client_has_left,
                deadline=self.deadline,
            )
            self.retries.tries.seconds_used = unit.attempt.seconds_used
        if not take_next(unit, self.retries.tries):
            return False
        self.failure = Failure(error if isinstance(error, Exception) else found)
        self.move(ResponseState.RETRY)
        return True

    def keep(self, message: Message) -> None:
        """Record a message of the body, if the request may be run again."""
        if self.snapshot is not None and not self._may_be_run_again():
            self.snapshot = None
        if self.snapshot is None:
            self.body = NOT_KEPT
        else:
            self.body = record(self.body, message, self.config.retry.body_limit)

    def _may_be_run_again(self) -> bool:
        """Whether its options set attempts, as far as they are known yet."""
        if route_retries.by_routers or not is_endpoint(self.scope.get("endpoint")):
            return True
        options = self.find_options(NO_OPTIONS)
        if options.read_only and self.config.has_replicas:
            return True
        return (options.attempts or 1) > 1

    def note_attempts(self, error: BaseException) -> None:
        if self.retries is not None:
            self.retries.tries.note(error)

    # `UnitOwner`, for its unit

    @property
    def is_over(self) -> bool:
        if self.response is _STARTED and self.client_has_left:
            return True
        return self.scope is NO_STATE or self.response is _COMPLETE

    def allows_another_attempt(self) -> bool:
        unit = self.open_unit()
        if self.response.has_started or unit.outcome not in _UNDONE:
            return False
        if self.snapshot is None or not self.snapshot.is_complete:
            return False
        if not is_kept(self.body, self.config.retry.body_limit):
            return False
        # Inside a unit that is itself run again both would count.
        return unit.parent is None or not unit.parent.is_in_a_retry

    def retry_forbidden(self) -> None:
        if self.response is ResponseState.RETRY:
            self.move(ResponseState.REPLACED)

    def unit_settled(self) -> None:
        """Take a retry back where the rollback came too late: it may be stored.

        Report to middlewares further out what they can't undo.
        """
        outer = self.outer
        while outer is not None:
            outer.committed_inside += stored_by(self.open_unit())
            outer = outer.outer
        if self.response is ResponseState.RETRY:
            unit = self.open_unit()
            if unit.outcome not in _UNDONE:
                self.retry_forbidden()

    @property
    def deadline_ends_at(self) -> float | None:
        if self.deadline is None or self.response.has_started:
            return None
        return self.deadline.until

    def is_served_by(self, task: object) -> bool:
        return task is self.task

    def session_requested(self) -> None:
        own = NO_OPTIONS if self.unit is None else self.unit.own_options
        limit = self.find_options(own).deadline
        if limit is not None and self.deadline is None:
            self.watch(Deadline(limit))

    # The deadline

    def stop_deadline(self) -> bool:
        """Stop it; say whether it, and nothing else, has cancelled the task."""
        if self.deadline is None or self.task is None:
            return False
        return self.deadline.stop()

    def watch(self, deadline: Deadline) -> None:
        self.deadline = deadline
        if self.task is not None:
            deadline.watch(self.task, partial(expire, self, deadline))
