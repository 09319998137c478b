"""How the unit of a request ends: before the response starts, and before its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

from .._concurrency.shield import uninterrupted
from .._execution.plan import Plan
from .._observing.unit_events import ResponseCompleted
from .._unit import endings
from .._unit.begin_options import check_in_time
from .._unit.context import current
from .._unit.direct_ending import DirectEnding, begin_directly, settle_directly
from .._unit.judging import judge_request
from .._unit.running import run_ending
from .._unit.unit import Unit
from ..errors import UsageError
from ..options import NO_OPTIONS
from ..outcome import Outcome, Verdict, succeeded
from .exception_handlers import Failure
from .request_reader import RequestReader
from .response import Unwind, call
from .state import ResponseState, State
from .streams import STREAMS_WRITES, streams_what_it_wrote
from .types import Message, Send

__all__ = ["EndedByResponse"]

log = logging.getLogger("unitwork")

_TIME_TO_START = 0.5  # seconds, once the task that sends has been cancelled
_WAITING = ResponseState.WAITING
_STARTED = ResponseState.STARTED
_COMPLETE = ResponseState.COMPLETE


class EndedByResponse(RequestReader):
    """One attempt at one request, whose unit is ended by what its response sends."""

    outer_state: MutableMapping[str, Any] | None
    send_on: Send
    start: Message | None
    state: State
    streams = False
    """Whether `stream=True` keeps the transaction open."""
    verdict: Verdict | None = None

    async def end_and_start(self, unit: Unit, message: Message) -> None:
        """Commit or roll back before the response starts; streams go on."""
        try:
            is_error = message["status"] >= 400
            direct = None
            if not is_error and self._is_to_be_committed(unit):
                direct = begin_directly(unit)
            if direct is None:
                await self._end(unit, is_error=is_error)
            else:
                await self._end_directly(unit, direct, f"status {message['status']}")
            self.note_start()
        except asyncio.CancelledError:
            if unit.outcome is Outcome.COMMITTED and self.response is _WAITING:
                # What is stored must not be reported as a failure: it is cut short.
                self.note_start()
                await uninterrupted(call(self.send_on, message), lambda: _TIME_TO_START)
            raise
        finally:
            if self.held is not None:
                self.let_go()
        await self.send_on(message)

    async def _end(self, unit: Unit, *, is_error: bool) -> None:
        self.forget_cancellations()
        verdict = await self._decide(unit)
        fails = is_error or not verdict.commit
        if fails and self.is_retried(self.handled_exception):
            await self.roll_back(unit, "the request is retried")
            if verdict.commit and not self.is_to_be_retried:
                self.failure = Failure(unit.unexpected())
            raise Unwind
        streams = self.streams or unit.sessions.may_stream
        if streams and verdict.commit and await streams_what_it_wrote(unit):
            streams = False
            if not is_error:
                await self.roll_back(unit, "it would have to be committed later")
                self.replace_response(UsageError(STREAMS_WRITES))
        ending = endings.end_before_body(unit, verdict, keep_streams_open=streams)
        await self.run_ending(unit, ending)

    def _is_to_be_committed(self, unit: Unit) -> bool:
        """Whether nothing but the status, which is no error's, decides about that."""
        return (
            self.handled_exception is None
            and self.verdict is None
            and self.deadline is None
            and self.config.commit_when is succeeded
            and current.get() is self
            and self.find_options(unit.own_options) is NO_OPTIONS
        )

    async def _end_directly(
        self, unit: Unit, direct: DirectEnding, reason: str
    ) -> None:
        """Commit; let the plan go on if that fails, or if more is to be done."""
        session, commit = direct
        is_over = sent = False
        failure: BaseException | None = None
        try:
            sent = await commit
            is_over = sent and settle_directly(unit, session, reason)
        except GeneratorExit:  # nothing may be awaited any more
            raise
        except BaseException as error:  # the plan settles the unit before it raises it
            failure = error
        cancelled = commit.cancelled
        if not is_over:
            if cancelled is None:
                self.forget_cancellations()
            verdict = Verdict(True, reason)
            plan = endings.go_on_after_commit(
                unit, verdict, session, sent=sent, error=failure
            )
            await self._go_on(unit, plan, cancelled)
        if cancelled is not None:
            self.unwind_if_client_left(unit, cancelled)
            raise cancelled

    async def _go_on(
        self, unit: Unit, plan: Plan[None], cancelled: asyncio.CancelledError | None
    ) -> None:
        if cancelled is None:
            await self.run_ending(unit, plan)
            return
        try:
            await run_ending(unit, plan)
        except asyncio.CancelledError:
            pass  # of the same scope, once more: the caller raises it
        except Exception as error:
            log.warning("a unit failed to end while it was cancelled", exc_info=error)

    async def end_and_finish(
        self, unit: Unit, message: Message, error: Exception | None
    ) -> None:
        """End what the body has begun, before its last chunk; an *error* cuts it."""
        try:
            if error is not None:
                await self.roll_back(unit, endings.raised(error))
                self.replace_response(error)
            # A task group whose other task has failed cancels this one now: FastAPI
            # ends a stream of events like that.
            await asyncio.sleep(0)
            verdict = await self._decide(unit)
            await self.run_ending(unit, self._end_for_good(unit, verdict))
        except asyncio.CancelledError:
            if self.response is _COMPLETE:  # it must not be reported as a failure
                await uninterrupted(call(self.send_on, message), lambda: _TIME_TO_START)
            raise
        finally:
            self.let_go()
        await self.send_on(message)

    def _end_for_good(self, unit: Unit, verdict: Verdict) -> Plan[None]:
        yield from endings.end_and_close(unit, lambda: verdict)
        self.move(_COMPLETE)
        if unit.report is not None:
            unit.report.emit(ResponseCompleted, True)

    def note_start(self) -> None:
        if self.response is _WAITING:
            self.response = _STARTED  # as `move()` does
        else:
            self.move(_STARTED)
        self.body = self.snapshot = None
        if self.state:
            self.show_state()
        if self.unit is not None and self.unit.report is not None:
            self.report_start(self.unit.report, self.start, self._status)

    def show_state(self) -> None:
        """Outer middleware holds the server's dict: show it what is in ours."""
        if self.outer_state is not None:
            self.outer_state.update(self.state)

    # Decisions

    @property
    def _status(self) -> int:
        status: int = 200 if self.start is None else self.start["status"]
        return status

    async def _decide(self, unit: Unit) -> Verdict:
        """Judge once; a rollback that is requested later still counts."""
        try:
            options = self.find_options(unit.own_options)
            if options is not NO_OPTIONS:
                check_in_time(unit)
                self.streams = bool(options.stream)
            if self.verdict is None or unit.decision.requests_rollback:
                status = 200 if self.start is None else self.start["status"]
                policy = options.commit_when or self.config.commit_when
                self.verdict = judge_request(
                    unit, status, self.handled_exception, self.scope, policy
                )
        except Exception as error:
            await self.roll_back(unit, endings.raised(error))
            self.replace_response(error)
        return self.verdict
