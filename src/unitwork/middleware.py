"""`DBSessionMiddleware`: a unit of work for each request. Knows ASGI, no framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from ._body import replayed
from ._current import covering, current
from ._ending import CommitWhen, succeeded
from ._handlers import answer
from ._lifespan import live
from ._replay import Attempts
from ._request import RequestUnit, State
from ._routed import Defaults, RoutedUnit, Terms, asked_by
from ._socket import Messages
from ._twophase import Order
from ._unit import UnitOfWork
from .database import AsyncDatabase, Database
from .errors import UsageError
from .options import asked
from .recovery import Janitor
from .retry import RetryPolicy

if TYPE_CHECKING:
    from ._source import Source

__all__ = ["DBSessionMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
AnyDatabase = Database[Any] | AsyncDatabase[Any]


class DBSessionMiddleware:
    """Give each request a unit of work, and end it before the client hears of it.

    *db* is a database or a sequence of them. *commit_when* decides, at the moment the
    response starts, whether to commit; by default if there was no exception and the
    status is below 400. *options* are the `TransactionOptions` of all requests, or of
    those of one method (a mapping), or a function from the ASGI scope to them; routes
    may say otherwise. *retry* says how those are run again that have `attempts`.
    Of several databases each is committed in its turn, in the order in which they are
    given; with *twophase* all are committed or none, which PostgreSQL and MariaDB can.
    The session is also at `request.state.<state_attribute>`; of
    several databases the first is there, and each at `request.state.<its name>`.

    A COMMIT that fails is answered by the application's own exception handlers; the
    response that the endpoint made is dropped, and its background tasks do not run.
    Does nothing for a request that does not ask for a session.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        app: ASGIApp,
        db: AnyDatabase | Sequence[AnyDatabase],
        *,
        commit_when: CommitWhen = succeeded,
        options: Defaults | None = None,
        retry: RetryPolicy | None = None,
        state_attribute: str = "db",
        twophase: bool = False,
    ) -> None:
        databases = [db] if isinstance(db, str) or not isinstance(db, Sequence) else db
        self._app = app
        self._sources = _by_attribute(databases, state_attribute)
        self._own = tuple(dict.fromkeys(self._sources.values()))
        self._terms = Terms(
            commit_when,
            asked_by(options),
            retry or RetryPolicy(),
            Order(self._own) if twophase else None,
        )
        if not callable(commit_when):
            raise UsageError(f"commit_when must be callable, this is {commit_when!r}")

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        attempts: Attempts | None = None,
    ) -> None:
        """Serve one connection, as ASGI says; *attempts* that have failed at it."""
        given = scope.get("state")
        parent = given.unit if type(given) is State else None
        sources = self._sources if parent is None else self._beyond(parent)
        if scope["type"] != "http" or not sources:
            await self._serve_other(scope, receive, send)
            return
        if asked.attempts and attempts is None:
            attempts = Attempts(scope, receive)
            receive = attempts.receive
        unit = RequestUnit(sources, parent, scope, receive, send, self._terms, given)
        if attempts is not None:
            unit._follow(attempts)
        state = scope["state"] = State(given or ())
        state.unit = unit
        token = current.set(unit)
        try:
            await self._app(scope, unit.receive, unit.send_after_commit)
            if unit._used and not unit._ended:
                await unit._abandon("the response was not finished")
        except BaseException as error:
            takes_over = unit._takes_over(error)
            await unit._abandon(f"{type(error).__name__} was raised")
            if not takes_over:
                raise
        finally:
            current.reset(token)
            if not unit._ended and given is not None and not unit._again:
                given.update(state)
            if unit._used:
                await unit._close()
            unit._ended = True
            unit._scope = {}  # which leads back to the unit
            if attempts is not None:
                unit._attempts = None  # and so does the scope that they keep
        if (failure := unit._failure) is None:
            return
        body, unit._failure, unit._body = unit._body, None, None
        if unit._started:
            raise failure  # cuts the response short
        receive = replayed(body, receive, self._terms.retry.body_limit)
        if attempts is None or not unit._again or unit._irrevocable is not None:
            await answer(failure, scope, receive, send)
            return
        attempts.failed = failure, receive
        if unit._attempt == 1:
            await self._run_again(attempts, send)

    async def _run_again(self, attempts: Attempts, send: Send) -> None:
        """Run the request once more, and again if that is to be followed, too."""
        try:
            while attempts.failed is not None:
                error, receive = attempts.failed
                attempts.failed = None
                if await attempts.receive.ends_within(attempts.announce(error)):
                    error.add_note("unitwork: not tried again, as the client has left")
                    await answer(error, attempts.scope, receive, send)
                    return
                scope = attempts.begin()
                await attempts.run(self(scope, receive, send, attempts))
        finally:
            await attempts.receive.close()

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "websocket":
            given = scope.get("state")
            parent = given.unit if isinstance(given, State) else None
            ours = self._sources if parent is None else self._beyond(parent)
            if ours:
                unit = RoutedUnit(ours, parent, scope, self._terms)
                await self._websocket(scope, receive, send, unit)
                return
        elif kind == "lifespan":
            order = self._terms.order
            janitor = Janitor(order) if order is not None else None
            await live(self._app, self._own, scope, receive, send, janitor)
            return
        await self._app(scope, receive, send)

    def _beyond(self, outer: UnitOfWork) -> dict[str, Source]:
        """Those of our databases that no middleware further out looks after."""
        items = self._sources.items()
        return {key: source for key, source in items if not covering(outer, source)}

    async def _websocket(
        self, scope: Scope, receive: Receive, send: Send, unit: UnitOfWork
    ) -> None:
        state = scope["state"] = State(scope.get("state", ()))
        state.unit = unit
        messages = Messages(unit, scope, receive, send, self._terms.commit_when)
        token = current.set(unit)
        try:
            await self._app(
                scope, messages.receive_after_commit, messages.send_after_commit
            )
            await messages.settle()
        except BaseException as error:
            await messages.abandon(error)
            raise
        finally:
            unit._end()
            current.reset(token)


def _by_attribute(
    databases: Sequence[object], state_attribute: str
) -> dict[str, Source]:
    """The databases by the attributes of `request.state` where their sessions are."""
    found: dict[str, Source] = {}
    for database in databases:
        if not isinstance(database, Database | AsyncDatabase):
            raise UsageError(
                f"db is {database!r}; give a Database or an AsyncDatabase, or several"
            )
        if database.name in found:
            raise UsageError(
                f"two databases are named {database.name!r}; give each its own name"
            )
        found[database.name] = database._source
    if not found:
        raise UsageError("db is empty; give at least one database")
    first = next(iter(found.values()))
    if found.get(state_attribute, first) is not first:
        raise UsageError(
            f"state_attribute is {state_attribute!r}, and so is the name of a database "
            "that is not the first; give another"
        )
    return {**found, state_attribute: first}
