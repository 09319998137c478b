"""One HTTP request and its response: holds the start back until the unit has ended."""

from __future__ import annotations

from asyncio import current_task
from collections.abc import Awaitable, Mapping
from sys import exception

from .._concurrency.shield import uninterrupted
from .._observing.unit_events import ResponseCompleted
from .._session.database_core import DatabaseCore
from .._unit import endings
from .._unit.context import current
from .._unit.state import UnitState
from .._unit.unit import Unit
from ..errors import UsageError
from ..options import route_retries
from .connection import Connection
from .event_loop import ONLY_ASYNCIO
from .replay import Snapshot
from .response import Unwind, join, nothing_more, too_late
from .response_ending import EndedByResponse
from .retry import Retries
from .route_options import MiddlewareConfig
from .state import NO_STATE, ResponseState, State
from .streams import SENT_INSIDE, failure_of_body, is_inside_writing_block
from .tokens import carrying
from .types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HTTPExchange"]

_LAST = frozenset(
    {"http.response.body", "http.response.zerocopysend", "http.response.pathsend"}
)
_WAITING = ResponseState.WAITING
_STARTED = ResponseState.STARTED
_COMPLETE = ResponseState.COMPLETE
_CLOSED = UnitState.CLOSED
_OPEN = UnitState.OPEN
_REPLACED = ResponseState.REPLACED


class HTTPExchange(EndedByResponse):
    """One request and its response; a retry is an exchange of its own."""

    kind = "request"

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
        self.response = _WAITING
        self.unit = self.found_options = self.start = self.leaving = None
        self.body = self.snapshot = self.retries = self.handled_exception = None
        if retries is not None:
            self.follow(retries)
        elif config.may_retry or route_retries.by_endpoints or route_retries.by_routers:
            self.snapshot = Snapshot(scope)
        self.config = config
        self.databases = databases
        self.outer = outer
        self.receive_from_server = receive
        self.send_on = send if config.carrier is None else carrying(self, scope, send)
        self.exception_before = exception()
        self.cancelling_before = 0 if task is None else task.cancelling()
        self.outer_state = outer_state = scope.get("state")
        self.state = scope["state"] = state = State()
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
            await self.pass_on_cancellation(error)
            self.note_failure(error)
        finally:
            current.reset(token)
            unit = self.unit
            is_unused = unit is None and self.found_options is None
            has_handled = self.handled_exception is not self.exception_before
            if is_unused and self.response is _COMPLETE and not has_handled:
                self.scope = self.state = NO_STATE  # as `_release()`: no more is there
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
        self.scope = self.state = NO_STATE
        if self.handled_exception is not None or self.exception_before is not None:
            self.handled_exception = self.exception_before = None
        self.found_options = None
        if self.unit is not None:
            if self.deadline is not None:
                self.stop_deadline()
            self.receive_from_server, self.send_on = nothing_more, too_late
            self.outer_state = self.leaving = self.task = self.start = None
            if self.failure is None:
                self.body = self.retries = self.snapshot = None

    def _leave_unfinished(self, response: ResponseState) -> None:
        self.report_cut_off()
        if response is _WAITING or response is _REPLACED:
            self.show_state()
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
                self.start = message
                if exception() is not self.exception_before:
                    self.note_exception()
                if (unit := self.unit) is not None:
                    if type(current.get()) is Unit:
                        return self._send_from_block(unit, message)
                    if unit.needs_ending or unit.is_ending:
                        return self.end_and_start(unit, message)
                    unit.sessions.release_unused_permits()
                error = self.handled_exception
                if error is not None and self.is_retried(error):
                    raise Unwind  # nothing to roll back: a block inside has failed
                if self.state or self.snapshot is not None or self.unit is not None:
                    self.note_start()
                else:
                    self.response = _STARTED  # as `note_start()` does
        elif response is not _STARTED:
            if response >= _REPLACED:
                raise Unwind
        elif not message.get("more_body") and message["type"] in _LAST:
            if (unit := self.unit) is not None:
                if type(current.get()) is Unit:
                    return self._send_from_block(unit, message)
                error = None if message.get("body") else failure_of_body()
                is_ending = unit.state is not _OPEN and unit.is_ending
                if error is not None or unit.needs_ending or is_ending:
                    return self.end_and_finish(unit, message, error)
                # What began while the chunk leaves would be lost, so nothing may begin.
                unit.close()
                if unit.report is not None:
                    unit.report.emit(ResponseCompleted, True)
            self.response = _COMPLETE  # as `move()` does
        return self.send_on(message)

    async def _send_from_block(self, unit: Unit, message: Message) -> None:
        """Send *message*, the first or last one, from inside a block, if it may be."""
        if await is_inside_writing_block(unit):
            await self.roll_back(unit, "the response was sent inside a block")
            self.replace_response(UsageError(SENT_INSIDE))
        token = current.set(self)
        try:
            await self.send(message)
        finally:
            current.reset(token)
