"""`DBSessionMiddleware`: a unit of work for each request. Knows ASGI, no framework."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ._ending import CommitWhen, Ending, Verdict, judge, succeeded
from ._handlers import answer
from ._lifespan import lifespan
from ._plan import Plan, arun, uninterrupted
from ._unit import UnitOfWork, current
from .database import AsyncDatabase, Database
from .errors import UsageError

if TYPE_CHECKING:
    from ._source import Source

__all__ = ["DBSessionMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, 9.2.1


class DBSessionMiddleware:
    """Give each request a unit of work, and end it before the client hears of it.

    *db* is a database or a sequence of them. *commit_when* decides, at the moment the
    response starts, whether to commit; by default if there was no exception and the
    status is below 400. The session is also at `request.state.<state_attribute>`; of
    several databases the first is there, and each at `request.state.<its name>`.

    A COMMIT that fails is answered by the application's own exception handlers; the
    response that the endpoint made is dropped, and its background tasks do not run.
    Does nothing for a request that does not ask for a session.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        app: ASGIApp,
        db: Database[Any] | AsyncDatabase[Any] | Sequence[Any],
        *,
        commit_when: CommitWhen = succeeded,
        state_attribute: str = "db",
    ) -> None:
        databases = list(db) if isinstance(db, Sequence) else [db]
        self._app = app
        self._sources = tuple(_source(database) for database in databases)
        self._commit_when = commit_when
        self._attributes = _attributes(self._sources, state_attribute)
        if not callable(commit_when):
            raise UsageError(f"commit_when must be callable, this is {commit_when!r}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI says."""
        kind = scope["type"]
        if kind == "http":
            if not self._covered(scope):
                await self._request(scope, receive, send)
                return
        elif kind == "websocket":
            if not self._covered(scope):
                await self._websocket(scope, receive, send)
                return
        elif kind == "lifespan":
            send = lifespan(self._sources, send)
        await self._app(scope, receive, send)

    def _covered(self, scope: Scope) -> bool:
        """Whether another middleware further out looks after our databases already."""
        unit: UnitOfWork | None = scope.get("unitwork")
        return unit is not None and all(unit._covers(s) for s in self._sources)

    def _open(self, scope: Scope, *, may_write: bool) -> UnitOfWork:
        parent = scope.get("unitwork")
        unit = UnitOfWork(self._sources, may_write=may_write, parent=parent)
        scope["unitwork"] = unit
        scope["state"] = _State(scope.get("state"), unit, self._attributes)
        return unit

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        outer_state = scope.get("state")
        unit = self._open(scope, may_write=scope["method"] not in SAFE_METHODS)
        exchange = _Exchange(unit, scope, send, self._commit_when)
        if outer_state is not None:
            exchange.outer_state = outer_state
        token = current.set(unit)
        try:
            await self._app(scope, receive, exchange.send_after_commit)
        except BaseException as error:
            if exchange.failure is None:
                await exchange.abandon(f"{type(error).__name__} was raised")
                raise
            if not isinstance(error, Exception | _Unwind | BaseExceptionGroup):
                raise  # cancelled, or told to exit, while it was unwound
        else:
            if exchange.failure is None:
                await exchange.abandon("the response was not finished")
        finally:
            unit._end()
            exchange.publish_state()
            current.reset(token)
        if exchange.failure is not None:
            if exchange.started:
                raise exchange.failure  # cuts the response short
            await answer(exchange.failure, scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        unit = self._open(scope, may_write=True)
        before = sys.exception()

        async def end_message() -> None:
            if not unit._pending:
                unit._leave()
                return
            error = sys.exception()
            await uninterrupted(
                arun(unit._end_message(None if error is before else error))
            )

        async def receive_after_commit() -> Message:
            await end_message()
            return await receive()

        async def send_after_commit(message: Message) -> None:
            await end_message()
            await send(message)

        token = current.set(unit)
        try:
            await self._app(scope, receive_after_commit, send_after_commit)
            await end_message()
        except BaseException as error:
            if unit._pending:
                await uninterrupted(arun(unit._end_message(error)))
            raise
        finally:
            unit._end()
            current.reset(token)


class _Unwind(BaseException):
    """Unwinds the application: a muted one would still run its background tasks."""


class _Exchange:
    """One HTTP request and its response, as the unit sees them go by."""

    __slots__ = (
        "_before",
        "_commit_when",
        "_exception",
        "_finished",
        "_scope",
        "_send",
        "_status",
        "_unit",
        "_verdict",
        "failure",
        "outer_state",
        "started",
    )

    def __init__(
        self, unit: UnitOfWork, scope: Scope, send: Send, commit_when: CommitWhen
    ) -> None:
        self._unit = unit
        self._scope = scope
        self._send = send
        self._commit_when = commit_when
        self._before = sys.exception()
        self._status = 0
        self._exception: BaseException | None = None
        self._verdict: Verdict | None = None
        self._finished = False
        self.started = False
        """Whether the start of a response has been handed to the server."""
        self.failure: Exception | None = None
        """What the client must hear of instead of the response."""
        self.outer_state: MutableMapping[str, Any] | None = None

    async def send_after_commit(self, message: Message) -> None:
        if self.failure is not None:
            raise _Unwind
        kind = message["type"]
        if kind == "http.response.start":
            if not self.started:
                self._status = message["status"]
                self._exception = sys.exception()  # a handler sends while it handles
                if self._unit._touched:
                    await self._end(streaming=False)
                self.publish_state()
                self.started = True
            await self._send(message)
        elif _is_last(kind, message):
            if self._unit._touched:
                await self._end(streaming=True)
            self._finished = True
            await self._send(message)
            self._unit._end()  # from now on the sessions refuse; background tasks next
        else:
            await self._send(message)

    async def _end(self, *, streaming: bool) -> None:
        """Commit or roll back what is open, before anybody hears of it.

        Called when the response starts (server-side cursors that are being streamed
        keep their transaction) and when its last chunk is about to leave.
        """
        unit = self._unit
        if not unit._pending:
            unit._leave()
            return
        try:
            verdict = self._judge()
        except Exception as error:
            await self._run(unit._finish(commit=False, reason="commit_when failed"))
            self._fail(error)
        lost = verdict.commit and unit._poison is not None
        commit = verdict.commit and not lost
        await self._run(
            unit._finish(commit=commit, reason=verdict.reason, streaming=streaming)
        )
        if lost and self._status < 400:
            self._fail(unit._unexpected())

    def _judge(self) -> Verdict:
        """Decide once; what the unit itself asks for later still counts."""
        unit = self._unit
        if self._verdict is None or unit._doomed is not None:
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
                doomed=unit._doomed,
                commit_anyway=unit._commit_anyway,
            )
        return self._verdict

    async def _run(self, plan: Plan[None]) -> None:
        try:
            await uninterrupted(arun(plan))
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        self.failure = error
        raise _Unwind from error

    async def abandon(self, reason: str) -> None:
        """Roll back what is open: the application has left, one way or the other."""
        if not self._finished and self._unit._pending:
            await uninterrupted(arun(self._unit._finish(commit=False, reason=reason)))

    def publish_state(self) -> None:
        """Show outer middleware, which holds the server's dict, what is in ours."""
        if self.outer_state is not None:
            self.outer_state.update(self._scope["state"])


def _is_last(kind: str, message: Message) -> bool:
    if kind == "http.response.body" or kind == "http.response.zerocopysend":
        return not message.get("more_body", False)
    return kind == "http.response.pathsend"


class _State(dict[str, Any]):
    """`scope["state"]`, in which the sessions appear when somebody asks for them."""

    __slots__ = ("_attributes", "_unit")

    def __init__(
        self,
        given: MutableMapping[str, Any] | None,
        unit: UnitOfWork,
        attributes: dict[str, Source],
    ) -> None:
        super().__init__(given or ())
        self._unit = unit
        self._attributes = attributes

    def __missing__(self, key: str) -> Any:
        return self._unit._lease(self._attributes[key]).session


def _source(database: object) -> Source:
    if not isinstance(database, Database | AsyncDatabase):
        raise UsageError(
            f"db is {database!r}; give a Database or an AsyncDatabase, or several"
        )
    return database._source


def _attributes(sources: Sequence[Source], state_attribute: str) -> dict[str, Source]:
    if not sources:
        raise UsageError("db is empty; give at least one database")
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise UsageError(f"two databases have one name: {names}; give each its own")
    attributes = {name: source for name, source in zip(names, sources, strict=True)}
    attributes[state_attribute] = sources[0]
    return attributes
