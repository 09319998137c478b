"""One HTTP request and its response: holds the start back until the unit has ended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Mapping, MutableMapping
from typing import Any, NoReturn

from .._concurrency.shield import uninterrupted
from .._execution.plan import Plan
from .._session.database_core import DatabaseCore
from .._unit import endings
from .._unit.begin_options import check_in_time
from .._unit.context import current
from .._unit.unit import Unit
from ..errors import UsageError
from ..options import NO_OPTIONS
from ..outcome import Ending, Verdict
from .attempt import RequestAttempt, nothing_more
from .body import record
from .connection import Connection
from .replay import Snapshot
from .retry import Retries
from .route_options import MiddlewareConfig
from .state import ResponseState, State
from .types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HTTPExchange"]

_LAST = frozenset(
    {"http.response.body", "http.response.zerocopysend", "http.response.pathsend"}
)
_WAITING = ResponseState.WAITING
_STARTED = ResponseState.STARTED
_COMPLETE = ResponseState.COMPLETE
_REPLACED = ResponseState.REPLACED
_STREAMS = (
    "the response starts while a transaction that has written is kept open, by "
    "stream=True or by a server-side cursor: it could be committed only after the "
    "client was told. Stream from a unit of its own: "
    "`async with db.transaction() as session:`"
)


_NO_STATE = State()


class Unwind(BaseException):
    """Unwinds the application: a muted one would still run its background tasks."""


class HTTPExchange(RequestAttempt):
    """One request and its response; a retry is an exchange of its own."""

    __slots__ = ("_leaving", "_outer_state", "_send", "_start", "_state", "_verdict")

    _leaving: asyncio.Task[None] | None
    _outer_state: MutableMapping[str, Any] | None
    _send: Send
    _start: Message | None
    _state: State
    _verdict: Verdict | None

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        config: MiddlewareConfig,
        databases: Mapping[str, DatabaseCore],
        outer: Connection | None,
        retries: Retries | None = None,
    ) -> None:
        # All in one place: to call the bases' own would take twice the time.
        self.scope = scope
        self.config = config
        self.databases = databases
        self.outer = outer
        self.unit = self.route_options = None
        self.receive_from_server = receive
        self._send = send
        self.response = ResponseState.WAITING
        self.failure = self.body = self.deadline = None
        self._start = self._verdict = self._leaving = None
        self.client_has_left = False
        self.exception_before = self.exception_at_start = sys.exception()
        self.task = asyncio.current_task()
        self.retries = retries
        self.snapshot = Snapshot(scope) if retries is None else retries.snapshot
        self._outer_state = state = scope.get("state")
        self._state = scope["state"] = State(state or ())
        self._state.provider = self
        if retries is not None and retries.deadline is not None:
            self.watch(retries.deadline)

    # What the middleware does with it

    async def serve(self, app: ASGIApp) -> None:
        """Run *app*; raise what it raises, unless an error replaces its response."""
        token = current.set(self)
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:
            is_replaced = self._is_replaced(error)
            await self._leave(endings.raised(error))
            if not is_replaced:
                raise
        finally:
            current.reset(token)
            if self.unit is not None:
                await self._leave("the response was not finished")
            self._let_go()

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

    async def _leave(self, reason: str) -> None:
        """Roll back what is open: the application has returned, or has raised."""
        if self._leaving is not None:
            await uninterrupted(_join(self._leaving))
        if self.unit is not None and self.unit.is_open:
            await endings.close(self.unit, reason)

    def _let_go(self) -> None:
        """Forget the request: a transport may keep its context, and with it this."""
        response = self.response
        if response is _WAITING or response is _STARTED:
            self.response = _COMPLETE
        if self.deadline is not None:
            self.stop_deadline()
        if response is _WAITING or response is _REPLACED:
            self._show_state()
        if self.retries is None:
            del self.snapshot
        self.scope = self._state = _NO_STATE  # the state leads back to here
        self.receive_from_server, self._send = nothing_more, _too_late
        self._outer_state = self._leaving = self.route_options = self.task = None
        self.exception_at_start = self.exception_before = None

    # What the application does with it

    async def receive(self) -> Message:
        message = await self.receive_from_server()
        if message["type"] == "http.request":
            if self.body is None:
                self.body = message
            else:
                limit = self.config.retry.body_limit
                self.body = record(self.body, message, limit)
            return message
        self.client_has_left = True
        streams = self.response is ResponseState.STARTED
        if streams and self.unit is not None and self._leaving is None:
            self._leaving = asyncio.create_task(self._client_leaves(self.unit))
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Hand *message* on, after what has to come before it.

        No coroutine function: where nothing has to, the server's own is enough.
        """
        response = self.response
        if response >= _REPLACED:
            raise Unwind
        kind = message["type"]
        if kind == "http.response.start":
            if response is _WAITING:
                self._start = message
                # A handler sends its response while it handles the exception.
                self.exception_at_start = error = sys.exception()
                if self.unit is not None and self._has_to_end(self.unit):
                    return self._end_and_start(self.unit, message)
                if error is not self.exception_before and self.is_retried(error):
                    raise Unwind  # nothing to roll back: a block inside has failed
                self.move(_STARTED)
                if self._state:
                    self._show_state()
        elif kind in _LAST and response is _STARTED and not message.get("more_body"):
            unit = self.unit
            if unit is not None and self._has_to_end(unit):
                return self._end_and_finish(unit, message)
            # What began while the chunk leaves would be lost, so nothing may begin.
            if unit is not None:
                unit.close()
            self.move(_COMPLETE)
        return self._send(message)

    @staticmethod
    def _has_to_end(unit: Unit) -> bool:
        if unit.needs_ending or unit.is_ending:
            return True
        unit.sessions.release_unused_permits()
        return False

    async def _end_and_start(self, unit: Unit, message: Message) -> None:
        """Commit or roll back before the response starts; streams go on."""
        is_error = message["status"] >= 400
        verdict = await self._decide(unit)
        if not verdict.commit or is_error:
            if self.is_retried(self.handled_exception):
                await self._drop(unit, "it is tried again")
                raise Unwind
        elif self._streams_what_it_wrote(unit):
            await self._drop(unit, "it would have to be committed later")
            self._fail(UsageError(_STREAMS))
        ending = endings.end_before_body(unit, verdict, error_response=is_error)
        await self._run(unit, ending)
        self.move(_STARTED)
        if self._state:
            self._show_state()
        await self._send(message)

    async def _end_and_finish(self, unit: Unit, message: Message) -> None:
        """Commit or roll back what the body has begun, before its last chunk leaves."""
        verdict = await self._decide(unit)
        is_error = self._status >= 400
        ending = endings.end_for_good(unit, lambda: verdict, error_response=is_error)
        await self._run(unit, ending)
        self.move(ResponseState.COMPLETE)
        await self._send(message)

    async def _run(self, unit: Unit, ending: Plan[None]) -> None:
        try:
            await endings.run_ending(unit, ending)
        except Exception as error:
            self._fail(error)

    async def _drop(self, unit: Unit, reason: str) -> None:
        await self._run(unit, endings.roll_back(unit, reason))

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
        """Judge once; a rollback that is asked for later still counts."""
        try:
            options = unit.options
            if options is not NO_OPTIONS:
                check_in_time(unit)
            if self._verdict is None or unit.rollback_requested is not None:
                ending = Ending(
                    status=self._status,
                    exception=self.handled_exception,
                    method=self.scope["method"],
                    path=self.scope["path"],
                )
                policy = options.commit_when or self.config.commit_when
                self._verdict = endings.judge_response(unit, ending, policy)
        except Exception as error:
            await self._drop(unit, endings.raised(error))
            self._fail(error)
        return self._verdict

    @staticmethod
    def _streams_what_it_wrote(unit: Unit) -> bool:
        """Whether a transaction that lasts as long as the response has written."""
        hold = unit.options.stream
        for session in unit.sessions:
            if hold:
                session.kept_for_stream = session.in_transaction
            if session.is_streaming and session.may_have_written:
                return True
        return False

    def _is_replaced(self, error: BaseException) -> bool:
        """Whether the client gets another error in place of *error*, which escapes.

        Decided before the rollback, after which nothing of the transaction is known.
        """
        ours = self.stop_deadline()
        if self.response < _REPLACED:
            if isinstance(error, Exception) and self.is_retried(error):
                return True
            self.note_attempts(error)
            return False
        if isinstance(error, asyncio.CancelledError):
            return ours
        # Otherwise the process was told to exit while the application was unwound.
        return isinstance(error, Exception | Unwind | BaseExceptionGroup)

    def _fail(self, error: Exception) -> NoReturn:
        if self.response >= _REPLACED:
            raise Unwind from error  # the deadline was first
        if not self.is_retried(error):
            self.note_attempts(error)
            self.failure = error
            started = self.response.has_started
            self.move(ResponseState.CUT_SHORT if started else _REPLACED)
        raise Unwind from error

    async def _client_leaves(self, unit: Unit) -> None:
        """Roll back what a stream has begun, now that its client has left.

        What runs later in the same task (a background task) must find the sessions
        closed. First the stream itself has to be cancelled: its task group does that in
        this round of the event loop, and goes on in the next but one.
        """
        await asyncio.sleep(0)
        await endings.close(unit, "the client left")


async def _join(task: asyncio.Task[None]) -> None:
    await asyncio.wait((task,))


async def _too_late(message: Message) -> None:
    raise UsageError("the request is over: nothing can be sent any more")
