"""The messages of a WebSocket, each of which settles what came before it."""

from __future__ import annotations

import sys
from asyncio import Lock
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

from ._concurrency.shield import uninterrupted
from ._drive import arun
from ._ending import CommitWhen, Ending, Verdict, judge
from ._ends import end_message
from ._unit import UnitOfWork

__all__ = ["Messages"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_DENIAL = "websocket.http.response.start"
_REFUSED = 403
"""What the client of a socket is told that is closed before it was accepted."""

_settling: ContextVar[Messages | None] = ContextVar("unitwork_settling", default=None)
"""Set inside an ending: a hook that sends must not wait for that very ending."""


class Messages:
    """What comes in and goes out of one WebSocket, and its unit in between."""

    __slots__ = (
        "_accepted",
        "_before",
        "_commit_when",
        "_failure",
        "_receive",
        "_scope",
        "_send",
        "_status",
        "_turn",
        "_unit",
    )

    def __init__(
        self,
        unit: UnitOfWork,
        scope: Scope,
        receive: Receive,
        send: Send,
        commit_when: CommitWhen,
    ) -> None:
        self._unit = unit
        self._scope = scope
        self._receive = receive
        self._send = send
        self._commit_when = commit_when
        self._before = sys.exception()
        self._accepted = False
        self._status: int | None = None
        """That of the response which refuses the handshake."""
        self._turn = Lock()
        self._failure: Exception | None = None

    async def receive_after_commit(self) -> Message:
        await self.settle()
        return await self._receive()

    async def send_after_commit(self, message: Message) -> None:
        if not self._accepted:
            self._note(message)
        await self.settle()
        await self._send(message)

    def _note(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._accepted = True
        elif kind == _DENIAL:
            self._status = message["status"]
        elif kind == "websocket.close":
            self._status = _REFUSED

    async def settle(self) -> None:
        """End what was begun since the last message. Of several tasks one does it.

        The others wait, and hear of it if COMMIT fails: what they are about to send
        may be a claim that it has not.
        """
        unit = self._unit
        if not unit._pending:
            unit._leave()
            return
        raised = sys.exception()
        error = None if raised is self._before else raised
        others = self._turn.locked()
        if others and _settling.get() is self:
            await self._end(error)
            return
        async with self._turn:
            if others and self._failure is not None:
                raise self._failure
            if not self._unit._pending:
                return
            self._failure = None
            try:
                await uninterrupted(self._end(error))
            except Exception as failure:
                self._failure = failure
                raise

    async def abandon(self, error: BaseException) -> None:
        """Roll back: the application has left with *error*."""
        if self._unit._pending:
            await uninterrupted(arun(end_message(self._unit, error)))

    async def _end(self, error: BaseException | None) -> None:
        _settling.set(self)
        verdict = None if self._status is None else self._judge(error, self._status)
        await arun(end_message(self._unit, error, verdict))

    def _judge(self, error: BaseException | None, status: int) -> Verdict:
        """Judge a refusal, which is an HTTP response."""
        unit = self._unit
        path = self._scope["path"]
        return judge(
            Ending(status=status, exception=error, method="GET", path=path),
            self._commit_when,
            doomed=unit._doomed,
            commit_anyway=unit._commit_anyway,
        )
