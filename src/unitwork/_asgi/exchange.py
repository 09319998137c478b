"""One HTTP request and its response: holds the start back until the unit has ended."""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import Awaitable, Mapping, MutableMapping
from sys import exception
from typing import Any

from .._concurrency.shield import uninterrupted
from .._observing.unit_events import ResponseCompleted
from .._session.database_core import DatabaseCore
from .._unit import endings
from .._unit.begin_options import check_in_time
from .._unit.context import current
from .._unit.judging import judge_request
from .._unit.state import UnitState
from .._unit.unit import Unit
from ..errors import UsageError
from ..options import NO_OPTIONS, route_retries
from ..outcome import Outcome, Verdict
from .connection import Connection
from .event_loop import ONLY_ASYNCIO
from .replay import Snapshot
from .request_reader import RequestReader
from .response import Unwind, call, join, nothing_more, too_late
from .retry import Retries
from .route_options import MiddlewareConfig
from .state import NO_STATE, ResponseState, State
from .streams import STREAMS_WRITES, failure_of_body, streams_what_it_wrote
from .tokens import carrying
from .types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HTTPExchange"]

_LAST = frozenset(
    {"http.response.body", "http.response.zerocopysend", "http.response.pathsend"}
)
_TIME_TO_START = 0.5  # seconds, once the task that sends has been cancelled
_WAITING = ResponseState.WAITING
_STARTED = ResponseState.STARTED
_COMPLETE = ResponseState.COMPLETE
_CLOSED = UnitState.CLOSED
_OPEN = UnitState.OPEN
_REPLACED = ResponseState.REPLACED


class HTTPExchange(RequestReader):
    """One request and its response; a retry is an exchange of its own."""

    kind = "request"
    response = _WAITING
    _outer_state: MutableMapping[str, Any] | None
    _send: Send
    _start: Message | None = None
    _streams = False
    """Whether `stream=True` keeps the transaction open."""
    _state: State
    _verdict: Verdict | None = None

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        config: MiddlewareConfig,
        databases: Mapping[str, DatabaseCore],
        outer: Connection | None,
        retries: Retries | None,
    ) -> None:
        try:
            self.task = task = current_task()
        except RuntimeError:
            raise UsageError(ONLY_ASYNCIO) from None
        # All in one place: to call the bases' own would take twice the time.
        self.scope = scope
        if retries is not None:
            self.follow(retries)
        elif config.may_retry or route_retries.by_endpoints or route_retries.by_routers:
            self.snapshot = Snapshot(scope)
        self.config = config
        self.databases = databases
        self.outer = outer
        self.receive_from_server = receive
        self._send = send if config.carrier is None else carrying(self, scope, send)
        self.unit = None
        self.exception_before = exception()
        self.cancelling_before = 0 if task is None else task.cancelling()
        self._outer_state = outer_state = scope.get("state")
        self._state = scope["state"] = state = State()
        state.provider = self
        if outer_state:
            state.update(outer_state)

    # Called by the middleware

    async def serve(self, app: ASGIApp) -> None:
        """Run *app*; raise what it raises, unless an error replaces its response."""
        token = current.set(self)
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:
            is_replaced = self.is_replaced_after(error)
            await self._close(endings.raised(error))
            if not is_replaced:
                raise
            await self.pass_on_cancellation()
            self.note_failure(error)
        finally:
            current.reset(token)
            unit = self.unit
            is_unused = unit is None and self.found_options is None
            handled, response = self.handled_exception, self.response
            if is_unused and response is _COMPLETE and handled is self.exception_before:
                self.scope = self._state = NO_STATE  # as `_release()`: no more is there
            elif unit is None or (unit.state is _CLOSED and self.leaving is None):
                self._release()
            else:
                await self._leave()

    def next_attempt(self, scope: Scope, receive: Receive, send: Send) -> HTTPExchange:
        return HTTPExchange(
            scope,
            receive,
            send,
            self.config,
            self.databases,
            self.outer,
            self.retries,
        )

    async def _close(self, reason: str) -> None:
        """Roll back what is open: the application has returned, or has raised."""
        if self.leaving is not None:
            await uninterrupted(join(self.leaving))
        if self.unit is not None and self.unit.is_open:
            await endings.close(self.unit, reason)

    async def _leave(self) -> None:
        try:
            await self._close("the response was not finished")
        finally:
            self._release()

    def _release(self) -> None:
        """Forget the request: a transport may keep its context, and with it this."""
        response = self.response
        if response is not _COMPLETE:
            self._leave_unfinished(response)
        # The state leads back to here.
        self.scope = self._state = NO_STATE
        if self.handled_exception is not None or self.exception_before is not None:
            self.handled_exception = self.exception_before = None
        self.found_options = None
        if self.unit is not None:
            if self.deadline is not None:
                self.stop_deadline()
            self.receive_from_server, self._send = nothing_more, too_late
            self._outer_state = self.leaving = self.task = self._start = None
            if self.failure is None:
                self.body = self.retries = self.snapshot = None

    def _leave_unfinished(self, response: ResponseState) -> None:
        self.report_cut_off()
        if response is _WAITING or response is _REPLACED:
            self._show_state()
        if response is _WAITING or response is _STARTED:
            self.move(_COMPLETE)

    # Called by the application

    def send(self, message: Message) -> Awaitable[None]:
        """Hand *message* on, after what has to come before it.

        No coroutine function: where nothing has to, the server's own is enough.
        """
        response = self.response
        if response is _WAITING:
            if message["type"] == "http.response.start":
                self._start = message
                if exception() is not self.exception_before:
                    self.note_exception()
                if (unit := self.unit) is not None:
                    if unit.needs_ending or unit.is_ending:
                        return self._end_and_start(unit, message)
                    unit.sessions.release_unused_permits()
                error = self.handled_exception
                if error is not None and self.is_retried(error):
                    raise Unwind  # nothing to roll back: a block inside has failed
                self.response = _STARTED  # as `move()` does
                if self._state or self.snapshot is not None or self.unit is not None:
                    self._started()
        elif response is not _STARTED:
            if response >= _REPLACED:
                raise Unwind
        elif not message.get("more_body") and message["type"] in _LAST:
            if (unit := self.unit) is not None:
                error = None if message.get("body") else failure_of_body()
                is_ending = unit.state is not _OPEN and unit.is_ending
                if error is not None or unit.needs_ending or is_ending:
                    return self._end_and_finish(unit, message, error)
                # What began while the chunk leaves would be lost, so nothing may begin.
                unit.close()
                if unit.report is not None:
                    unit.report.emit(ResponseCompleted, True)
            self.response = _COMPLETE  # as `move()` does
        return self._send(message)

    async def _end_and_start(self, unit: Unit, message: Message) -> None:
        """Commit or roll back before the response starts; streams go on."""
        is_error = message["status"] >= 400
        try:
            verdict = await self._decide(unit)
            fails = is_error or not verdict.commit
            if fails and self.is_retried(self.handled_exception):
                await self.roll_back(unit, "the request is retried")
                if verdict.commit and not self.is_to_be_retried:
                    self.failure = unit.unexpected()
                raise Unwind
            streams = self._streams or unit.sessions.may_stream
            if streams and verdict.commit and await streams_what_it_wrote(unit):
                streams = False
                if not is_error:
                    await self.roll_back(unit, "it would have to be committed later")
                    self.replace_response(UsageError(STREAMS_WRITES))
            ending = endings.end_before_body(unit, verdict, keep_streams_open=streams)
            await self.run_ending(unit, ending)
            self._note_start()
        except asyncio.CancelledError:
            if unit.outcome is Outcome.COMMITTED and self.response is _WAITING:
                # What is stored must not be reported as a failure: it is cut short.
                self._note_start()
                await uninterrupted(call(self._send, message), lambda: _TIME_TO_START)
            raise
        finally:
            if self.held is not None:
                self.let_go()
        await self._send(message)

    async def _end_and_finish(
        self, unit: Unit, message: Message, error: Exception | None
    ) -> None:
        """End what the body has begun, before its last chunk; an *error* cuts it."""
        try:
            if error is not None:
                await self.roll_back(unit, endings.raised(error))
                self.replace_response(error)
            verdict = await self._decide(unit)
            await self.run_ending(unit, endings.end_and_close(unit, lambda: verdict))
            self.move(_COMPLETE)
            if unit.report is not None:
                unit.report.emit(ResponseCompleted, True)
        finally:
            self.let_go()
        await self._send(message)

    def _note_start(self) -> None:
        self.move(_STARTED)
        self._started()

    def _started(self) -> None:
        self.body = self.snapshot = None
        if self._state:
            self._show_state()
        if self.unit is not None and self.unit.report is not None:
            self.report_start(self.unit.report, self._start, self._status)

    def _show_state(self) -> None:
        """Outer middleware holds the server's dict: show it what is in ours."""
        if self._outer_state is not None:
            self._outer_state.update(self._state)

    # Decisions

    @property
    def _status(self) -> int:
        status: int = 200 if self._start is None else self._start["status"]
        return status

    async def _decide(self, unit: Unit) -> Verdict:
        """Judge once; a rollback that is requested later still counts."""
        try:
            options = self.find_options(unit.own_options)
            if options is not NO_OPTIONS:
                check_in_time(unit)
                self._streams = bool(options.stream)
            if self._verdict is None or unit.rollback_requested is not None:
                status = 200 if self._start is None else self._start["status"]
                policy = options.commit_when or self.config.commit_when
                self._verdict = judge_request(
                    unit, status, self.handled_exception, self.scope, policy
                )
        except Exception as error:
            await self.roll_back(unit, endings.raised(error))
            self.replace_response(error)
        return self._verdict
