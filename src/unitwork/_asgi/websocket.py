"""One WebSocket: its unit ends before each message that is sent or received."""

from __future__ import annotations

import sys
from asyncio import Lock
from collections.abc import Mapping
from contextvars import ContextVar, copy_context

from .._session.database_core import DatabaseCore
from .._unit.context import current
from .._unit.endings import (
    close,
    end_message,
    judge_response,
    raised,
    run_ending,
)
from .._unit.state import UnitState
from .._unit.unit import Unit
from ..errors import UsageError
from ..outcome import Ending, Outcome, Verdict
from .connection import Connection
from .route_options import MiddlewareConfig
from .state import State
from .types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["WebSocket"]

_DENIAL = "websocket.http.response.start"
_REFUSED = 403
"""The status of a WebSocket that is closed before it was accepted."""
_IN_BEFORE_COMMIT = (
    "a before_commit hook can't send or receive on the WebSocket: that has to wait for "
    "the COMMIT, which waits for the hook. Use on_commit"
)

_inside: ContextVar[object] = ContextVar("unitwork_ending", default=None)
"""The ending in whose context this runs: in a hook, or in what a hook has started."""


class WebSocket(Connection):
    """One WebSocket. Of several tasks that send at once, only one ends the unit."""

    __slots__ = (
        "_accepted",
        "_ending",
        "_exception_before",
        "_failure",
        "_is_over",
        "_receive",
        "_send",
        "_status",
        "_turn",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        config: MiddlewareConfig,
        databases: Mapping[str, DatabaseCore],
        outer: Connection | None,
    ) -> None:
        super().__init__(scope, config, databases, outer)
        self._receive = receive
        self._send = send
        self._exception_before = sys.exception()
        self._accepted = False
        self._status: int | None = None
        """That of the response which refuses the handshake."""
        self._is_over = False
        self._turn = Lock()
        self._ending: object = None
        """The one that is under way."""
        self._failure: Exception | None = None
        """That of the last ending."""
        state = scope["state"] = State(scope.get("state") or ())
        state.provider = self

    async def serve(self, app: ASGIApp) -> None:
        """Run *app*; raise what it raises."""
        token = current.set(self)
        reason = "the WebSocket has ended"
        try:
            await app(self.scope, self.receive, self.send)
            await self._end_message()
        except BaseException as error:
            reason = raised(error)
            raise
        finally:
            self._is_over = True
            if self.unit is not None:
                await close(self.unit, reason)
            current.reset(token)
            self.forget_scope()

    async def receive(self) -> Message:
        await self._end_message()
        return await self._receive()

    async def send(self, message: Message) -> None:
        if not self._accepted:
            self._note_handshake(message)
        await self._end_message()
        await self._send(message)

    def _note_handshake(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._accepted = True
        elif kind == _DENIAL:
            self._status = message["status"]
        elif kind == "websocket.close":
            self._status = _REFUSED

    async def _end_message(self) -> None:
        """End what has begun since the last message.

        Of several tasks one does it. The others wait, and their messages are not sent
        if it fails: they may depend on the work that was to be committed.
        """
        unit = self.unit
        if unit is None or self._need_not_wait(unit):
            return
        handled = sys.exception()
        error = None if handled is self._exception_before else handled
        waits = self._turn.locked()
        async with self._turn:
            if waits and self._failure is not None:
                raise self._failure
            if not unit.needs_ending:
                return
            self._failure, self._ending = None, object()
            try:
                await self._end(unit, error, self._ending)
            except Exception as failure:
                self._failure = failure
                raise
            finally:
                self._ending = None

    def _need_not_wait(self, unit: Unit) -> bool:
        """Whether a message need not wait for an ending."""
        if not self._turn.locked():
            if unit.needs_ending:
                return False
            unit.sessions.release_unused_permits()
            return True
        is_inside = _inside.get() is self._ending
        if is_inside and unit.state is UnitState.ENDING:
            raise UsageError(_IN_BEFORE_COMMIT)
        stored = unit.outcome in (Outcome.COMMITTED, Outcome.EMPTY)
        return unit.state is UnitState.SETTLED and (is_inside or stored)

    async def _end(
        self, unit: Unit, error: BaseException | None, ending: object
    ) -> None:
        context = copy_context()
        context.run(_inside.set, ending)
        context.run(current.set, self)
        plan = end_message(unit, lambda: self._judge(unit, error))
        await run_ending(unit, plan, context)

    def _judge(self, unit: Unit, error: BaseException | None) -> Verdict:
        """Judge a message by *error* alone, a refusal as an HTTP response."""
        if self._status is None:
            reason = "the message was handled" if error is None else raised(error)
            return Verdict(error is None, reason)
        path = self.scope["path"]
        ending = Ending(status=self._status, exception=error, method="GET", path=path)
        return judge_response(unit, ending, self.config.commit_when)

    # `UnitOwner`, for its unit

    @property
    def is_over(self) -> bool:
        return self._is_over

    def allows_another_attempt(self) -> bool:
        return False  # no message is handled twice
