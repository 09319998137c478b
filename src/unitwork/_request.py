"""The unit of an HTTP request, which sees the response go by and judges itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from ._body import Recording, record
from ._ending import CommitWhen, Ending, Verdict, judge
from ._plan import Plan, uninterrupted
from ._unit import UnitOfWork
from .errors import UsageError

if TYPE_CHECKING:
    from ._source import Source

__all__ = ["RequestUnit", "State", "Unwind"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, 9.2.1


_CANCELLED_AFTER = 3
"""Rounds of the event loop until a task group has told its tasks of a cancellation."""


class Unwind(BaseException):
    """Unwinds the application: a muted one would still run its background tasks."""


class RequestUnit(UnitOfWork):
    """The unit of one request and its response."""

    __slots__ = (
        "_before",
        "_body",
        "_commit_when",
        "_exception",
        "_failure",
        "_leaving",
        "_outer_state",
        "_receive",
        "_scope",
        "_send",
        "_started",
        "_status",
        "_verdict",
    )

    def __init__(
        self,
        sources: Mapping[str, Source],
        parent: UnitOfWork | None,
        scope: Scope,
        receive: Receive,
        send: Send,
        commit_when: CommitWhen,
        outer_state: MutableMapping[str, Any] | None,
    ) -> None:
        UnitOfWork.__init__(self, sources, parent)  # super() would take twice the time
        self._scope = scope
        self._receive = receive
        self._send = send
        self._commit_when = commit_when
        self._outer_state = outer_state
        self._before = sys.exception()
        self._started = False
        """Whether the start of a response has been handed to the server."""
        self._failure: Exception | None = None
        """What the client must hear of instead of the response."""
        self._leaving: asyncio.Task[None] | None = None
        self._body: Message | Recording | None = None

    @property
    def _may_write(self) -> bool:
        return self._scope["method"] not in SAFE_METHODS

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._body = message if self._body is None else record(self._body, message)
        elif self._started and self._leases is not None and self._leaving is None:
            self._leaving = asyncio.create_task(self._leave_stream())
        return message

    async def send_after_commit(self, message: Message) -> None:
        if self._failure is not None:
            raise Unwind
        kind = message["type"]
        if kind == "http.response.start":
            if not self._started:
                # A handler sends its response while it handles the exception.
                self._exception = sys.exception()
                self._status = message["status"]
                self._verdict: Verdict | None = None
                if self._leases is not None or self._hooks is not None:
                    await self._end_part(streaming=False)
                self._started = True
                # Outer middleware holds the server's dict: show it what is in ours.
                if self._outer_state is not None:
                    self._outer_state.update(self._scope["state"])
            await self._send(message)
        elif message.get("more_body") or kind not in _LAST:
            await self._send(message)
        else:
            if self._leases is not None or self._hooks is not None:
                await self._end_part(streaming=True)
                # They refuse now: a stray must not begin while the chunk leaves.
                self._end()
                await self._send(message)
            else:
                self._ended = True  # so that nothing begins while the chunk leaves
                await self._send(message)

    async def _end_part(self, *, streaming: bool) -> None:
        """Commit or roll back what is open, before anybody hears of it.

        Called when the response starts (server-side cursors that are being streamed
        keep their transaction) and when its last chunk is about to leave.
        """
        if not self._pending:
            self._leave()
            return
        try:
            verdict = self._judge()
        except Exception as error:
            await self._run_or_fail(
                self._finish(commit=False, reason="commit_when failed")
            )
            self._fail(error)
        if verdict.commit and not streaming and self._streams_what_it_wrote:
            await self._run_or_fail(
                self._finish(commit=False, reason="a cursor is open")
            )
            self._fail(
                UsageError(
                    "the response starts while a server-side cursor is open in a "
                    "transaction that has written: it could be committed only after "
                    "the client was told. Stream from a unit of its own: "
                    "`async with db.transaction() as session:`"
                )
            )
        await self._run_or_fail(
            self._finish(
                commit=verdict.commit,
                reason=verdict.reason,
                streaming=streaming,
                may_lose=self._status >= 400,
            )
        )
        self._settle(None)

    @property
    def _streams_what_it_wrote(self) -> bool:
        leases = (self._leases or {}).values()
        return any(lease.streaming and lease.wrote for lease in leases)

    def _judge(self) -> Verdict:
        """Decide once; what the unit itself asks for later still counts."""
        if self._verdict is None or self._doomed is not None:
            raised = self._exception
            ending = Ending(
                status=self._status,
                exception=None if raised is self._before else raised,
                method=self._scope["method"],
                path=self._scope["path"],
            )
            self._verdict = judge(
                ending,
                self._commit_when,
                doomed=self._doomed,
                commit_anyway=self._commit_anyway,
            )
        return self._verdict

    async def _run_or_fail(self, plan: Plan[None]) -> None:
        try:
            await self._run(plan)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        self._failure = error
        raise Unwind from error

    async def _abandon(self, reason: str) -> None:
        """Roll back what is open: the application has left, one way or the other."""
        if self._leaving is not None:
            await self._left()
        if self._pending:
            await self._run(self._finish(commit=False, reason=reason))

    async def _leave_stream(self) -> None:
        """Roll back what a stream has begun, now that its client has left.

        What runs later in the same task (a background task) must find the sessions
        closed. First the stream itself has to hear that it was cancelled.
        """
        for _ in range(_CANCELLED_AFTER):
            await asyncio.sleep(0)
        if self._pending:
            await self._run(self._finish(commit=False, reason="the client left"))
        self._refuse()

    async def _left(self) -> None:
        async def join(task: asyncio.Task[None]) -> None:
            await asyncio.wait((task,))

        assert self._leaving is not None
        await uninterrupted(join(self._leaving))

    def _let_go(self) -> None:
        """Forget the request, which an asyncio transport would keep: see `_end`."""
        self._scope = {}
        self._receive, self._send = _nothing, _too_late
        self._outer_state = self._exception = self._before = None
        self._failure = self._body = None


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


async def _too_late(message: Message) -> None:
    raise UsageError("the request is over: nothing can be sent any more")


_LAST = frozenset(
    {"http.response.body", "http.response.zerocopysend", "http.response.pathsend"}
)


class State(dict[str, Any]):
    """`scope["state"]`, in which the sessions appear when somebody asks for them."""

    __slots__ = ("unit",)

    unit: UnitOfWork

    def __missing__(self, key: str) -> Any:
        unit: UnitOfWork | None = self.unit
        while unit is not None:
            if (source := unit._sources.get(key)) is not None:
                return unit._lease(source).session
            unit = unit._parent  # of a middleware further out
        raise KeyError(key)
