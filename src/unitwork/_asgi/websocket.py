"""One WebSocket: its unit ends before each message that is sent or received."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextvars import ContextVar, copy_context

from .._session.database_core import DatabaseCore
from .._unit.context import current
from .._unit.endings import close, end_message, raised
from .._unit.error_notes import explain
from .._unit.judging import judge_response
from .._unit.running import run_ending
from .._unit.state import UnitState
from .._unit.unit import Unit
from ..errors import UsageError
from ..outcome import Ending, Verdict
from .answered_exception import answered_exception
from .connection import Connection
from .event_loop import current_task
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

_inside: ContextVar[_MessageEnding | None] = ContextVar("unitwork_ending", default=None)
"""The ending in whose context this runs: in a hook, or in what a hook has started."""


class _MessageEnding:
    """The ending of a unit before one message."""

    __slots__ = ("failure", "settled")

    def __init__(self) -> None:
        self.settled = asyncio.Event()
        self.failure: Exception | None = None


class WebSocket(Connection):
    """One WebSocket. Of several tasks that send at once, only one ends the unit."""

    kind = "websocket"
    __slots__ = (
        "_accepted",
        "_ending",
        "_exception_before",
        "_is_over",
        "_receive",
        "_send",
        "_status",
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
        current_task()  # raises without asyncio
        super().__init__(scope, config, databases, outer)
        self._receive = receive
        self._send = send
        self._exception_before = sys.exception()
        self._accepted = False
        self._status: int | None = None
        """That of the response which refuses the handshake."""
        self._is_over = False
        self._ending: _MessageEnding | None = None
        """The one that is under way."""
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
            explain(error, self.unit)
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
        if unit is None:
            return
        if unit.state is UnitState.SETTLED:
            if unit.cut_off_by is not None:
                raise unit.cut_off_by
            return  # hooks run, one of which may wait for this message
        error = answered_exception(self, self._exception_before)
        while (ending := self._ending) is not None:
            if await self._is_settled(unit, ending):
                return
        if not unit.needs_ending:
            unit.start_afresh()
            unit.sessions.release_unused_permits()
            return
        self._ending = ending = _MessageEnding()
        try:
            await self._end(unit, error, ending)
        except Exception as failure:
            ending.failure = failure
            raise
        finally:
            self._ending = None
            ending.settled.set()

    async def _is_settled(self, unit: Unit, ending: _MessageEnding) -> bool:
        """Wait for the outcome; raise if it is a failure. Return whether hooks run."""
        if _inside.get() is ending and unit.state is UnitState.ENDING:
            raise UsageError(_IN_BEFORE_COMMIT)
        if unit.known_blocks is not None:
            unit.known_blocks.end_requested()
        if ending.settled.is_set():
            await asyncio.sleep(0)  # its task is about to go on
        await ending.settled.wait()
        is_settled = unit.state is UnitState.SETTLED
        failure = unit.upcoming_error if is_settled else ending.failure
        if failure is not None and _inside.get() is not ending:
            raise failure
        return is_settled

    async def _end(
        self, unit: Unit, error: BaseException | None, ending: _MessageEnding
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
        path = self.scope.get("path", "")
        ending = Ending(status=self._status, exception=error, method="GET", path=path)
        return judge_response(unit, ending, self.config.commit_when)

    # `UnitOwner`, for its unit

    @property
    def is_over(self) -> bool:
        return self._is_over

    def unit_settled(self) -> None:
        if self._ending is not None:
            self._ending.settled.set()

    def allows_another_attempt(self) -> bool:
        return False  # no message is handled twice
