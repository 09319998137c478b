"""The unit of an HTTP request, which sees the response go by and judges itself."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from ._ending import CommitWhen, Ending, Verdict, judge
from ._plan import Plan, arun, uninterrupted
from ._unit import UnitOfWork
from .errors import UsageError

if TYPE_CHECKING:
    from ._source import Source

__all__ = ["RequestUnit", "State", "Unwind"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, 9.2.1


class Unwind(BaseException):
    """Unwinds the application: a muted one would still run its background tasks."""


class RequestUnit(UnitOfWork):
    """The unit of one request and its response."""

    __slots__ = (
        "_before",
        "_commit_when",
        "_exception",
        "_failure",
        "_outer_state",
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
        send: Send,
        commit_when: CommitWhen,
        outer_state: MutableMapping[str, Any] | None,
    ) -> None:
        UnitOfWork.__init__(self, sources, parent)  # super() would take twice the time
        self._scope = scope
        self._send = send
        self._commit_when = commit_when
        self._outer_state = outer_state
        self._before = sys.exception()
        self._started = False
        """Whether the start of a response has been handed to the server."""
        self._failure: Exception | None = None
        """What the client must hear of instead of the response."""

    @property
    def _may_write(self) -> bool:
        return self._scope["method"] not in SAFE_METHODS

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
                await self._send(message)
                self._ended = True

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
            await self._run(self._finish(commit=False, reason="commit_when failed"))
            self._fail(error)
        if verdict.commit and not streaming and self._streams_what_it_wrote:
            await self._run(self._finish(commit=False, reason="a cursor is open"))
            self._fail(
                UsageError(
                    "the response starts while a server-side cursor is open in a "
                    "transaction that has written: it could be committed only after "
                    "the client was told. Stream from a unit of its own: "
                    "`async with db.transaction() as session:`"
                )
            )
        await self._run(
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

    async def _run(self, plan: Plan[None]) -> None:
        try:
            await uninterrupted(arun(plan))
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        self._failure = error
        raise Unwind from error

    async def _abandon(self, reason: str) -> None:
        """Roll back what is open: the application has left, one way or the other."""
        await uninterrupted(arun(self._finish(commit=False, reason=reason)))


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
