"""The response of an HTTP request: its state, and the error that may replace it."""

from __future__ import annotations

import asyncio

from .._concurrency.cancellation import may_hide_cancellation
from .._observing.unit_events import ResponseCompleted, ResponseStarted
from .._observing.unit_report import UnitReport
from .._unit.state import IllegalMove
from .._unit.unit import Unit
from ..errors import UsageError
from ..outcome import Outcome
from .answered_exception import answered_exception
from .body import Recording, replayed
from .connection import Connection
from .exception_handlers import Failure, answers_itself
from .server_timing import add_timing
from .state import NEXT_STATES, ResponseState
from .tokens import carrying
from .types import Message, Receive, Scope, Send

__all__ = ["ReplaceableResponse", "Unwind", "call", "join", "nothing_more", "too_late"]

_CUT_OFF = (ResponseState.STARTED, ResponseState.CUT_SHORT)
_MAY_BE_UNWOUND = (ResponseState.WAITING, ResponseState.STARTED)


async def nothing_more() -> Message:
    """The `receive` of a request that is over."""
    return {"type": "http.disconnect"}


async def too_late(message: Message) -> None:
    """The `send` of a request that is over."""
    raise UsageError("the request is over: nothing can be sent any more")


async def call(send: Send, message: Message) -> None:
    await send(message)


async def join(task: asyncio.Task[None]) -> None:
    await asyncio.wait((task,))


class Unwind(BaseException):
    """Unwinds the application: a silenced one would still run its background tasks."""


class ReplaceableResponse(Connection):
    """The response of a request. `move()` changes its state, as `NEXT_STATES` allows.

    The exchange itself makes the two moves of a response that nothing replaces.
    """

    body: Message | Recording | None
    """What has been read of the request's, for those that come later."""
    cancelling_before: int
    client_has_left = False
    exception_before: BaseException | None
    failure: Failure | None = None
    """What the client gets in place of the response."""
    handled_exception: BaseException | None
    """The exception that a handler makes into the response."""
    receive_from_server: Receive
    response: ResponseState
    task: asyncio.Task[object] | None
    """The one that runs the application."""

    def move(self, state: ResponseState) -> None:
        if not NEXT_STATES[self.response] & 1 << state:
            raise IllegalMove(
                f"a response that is {self.response.name} can't be {state.name}"
            )
        self.response = state

    def note_exception(self) -> None:
        """Note the exception that the application answers, if it handles one now."""
        if (error := answered_exception(self, self.exception_before)) is not None:
            self.handled_exception = error

    # An error in place of the response

    async def answer_failure(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application's handlers answer, if there is an error to answer."""
        if self.failure is None:
            return
        cut_short = self.response is ResponseState.CUT_SHORT
        failure, receive = self.take_failure(receive)
        if cut_short:
            raise failure.error
        await self.answer(failure, scope, receive, send)

    def take_failure(self, receive: Receive) -> tuple[Failure, Receive]:
        """Give it, and a *receive* that begins with the body that was read."""
        failure, body = self.failure, self.body
        assert failure is not None
        self.failure = self.body = None
        return failure, replayed(body, receive, self.config.retry.body_limit)

    async def answer(
        self, failure: Failure, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Let the application's handlers, or unitwork itself, answer *failure*."""
        # The application's request reads from here.
        self.receive_from_server = receive
        if self.config.carrier is not None:  # the outcome may be unknown
            send = carrying(self, scope, send)
        send, answer_errors = self._reported(send), self.config.answer_errors
        await failure.answer(scope, receive, send, answer_errors=answer_errors)
        self.receive_from_server = nothing_more

    def _reported(self, send: Send) -> Send:
        """Report the start and the end of the answer that *send* sends."""
        report = None if self.unit is None else self.unit.report
        if report is None:
            return send

        async def reported_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                report.emit(ResponseStarted, message["status"])
            elif not message.get("more_body"):
                report.emit(ResponseCompleted, True)
            await send(message)

        return reported_send

    def report_start(
        self, report: UnitReport, start: Message | None, status: int
    ) -> None:
        """Report the *start* of the response, and add the header that is requested."""
        report.emit(ResponseStarted, status)
        if self.config.server_timing is not None and start is not None:
            add_timing(start, report, self.scope, self.config.server_timing)

    def report_cut_off(self) -> None:
        """Report a response that has started and is not complete."""
        report = None if self.unit is None else self.unit.report
        if report is not None and self.response in _CUT_OFF:
            report.emit(ResponseCompleted, False)

    def note_failure(self, error: BaseException) -> None:
        """Find what is needed to answer the failure for which *error* was raised."""
        if self.failure is not None and not isinstance(error, Exception):
            self.failure.find_request(error)

    def answers_itself(self, error: BaseException) -> bool:
        """Whether unitwork answers *error*, which has left the application."""
        if self.response is not ResponseState.WAITING or not (
            self.config.answer_errors
            and isinstance(error, Exception)
            and answers_itself(error, self.scope)
        ):
            return False
        self.failure = Failure(error, handlers_left=True)
        self.move(ResponseState.REPLACED)
        return True

    def forget_cancellations(self) -> None:
        """Do not count those so far: the request's task has gone on to respond.

        Before Python 3.13 `asyncio.TaskGroup` does not take its own back.
        """
        task = asyncio.current_task()
        if task is not None and task is self.task:
            self.cancelling_before = task.cancelling()

    async def pass_on_cancellation(self, error: BaseException) -> None:
        """Raise the cancellation of the request, if *error* has taken its place."""
        task = self.task
        if task is None or task.cancelling() <= self.cancelling_before:
            return
        if may_hide_cancellation(error, task, self.cancelling_before):
            self.failure = self.body = None
            await asyncio.sleep(0)  # anyio raises its own, if it is one of its scopes
            raise asyncio.CancelledError

    def unwind_if_client_left(
        self, unit: Unit, cancelled: asyncio.CancelledError
    ) -> None:
        """Raise `Unwind` if the client has left and the work is rolled back.

        A task group takes the cancellation of the task that sends for its own, and the
        application goes on, with its background tasks.
        """
        if asyncio.current_task() is self.task or not self.client_has_left:
            return
        if self.response is ResponseState.RETRY:
            raise Unwind from cancelled
        if unit.outcome is Outcome.ROLLED_BACK and self.response in _MAY_BE_UNWOUND:
            started = self.response.has_started
            self.move(ResponseState.CUT_SHORT if started else ResponseState.REPLACED)
            raise Unwind from cancelled
