"""`DBSessionMiddleware`: a unit of work for each request. Knows ASGI, no framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from sqlalchemy.engine import URL

from ._asgi.carriers import TokenCarrier
from ._asgi.connection import Connection, uncovered
from ._asgi.exchange import HTTPExchange
from ._asgi.lifespan import run_lifespan
from ._asgi.misconfiguration import refuse_to_serve, reported_at_start
from ._asgi.rerun import run_again
from ._asgi.route_options import Defaults, MiddlewareConfig, defaults_of, may_retry
from ._asgi.server_timing import ServerTiming
from ._asgi.state import State
from ._asgi.types import ASGIApp, Receive, Scope, Send
from ._asgi.websocket import WebSocket
from ._callables import check_callable
from ._redaction import described
from ._session.database_core import DatabaseCore
from ._session.redirection import redirection
from ._sources import database_of
from ._twophase.janitor import Janitor
from ._twophase.order import CommitOrder
from ._unit.database_base import core_of
from .errors import UsageError
from .outcome import CommitWhen, succeeded
from .retry import RetryPolicy, policy_of

if TYPE_CHECKING:
    from ._sources import Source

__all__ = ["DBSessionMiddleware"]


class DBSessionMiddleware:
    """Give each request a unit of work: committed or rolled back before the response.

    *db* is a database or a sequence of them; a sessionmaker, an engine or a URL stands
    for a database made of it. *commit_when* decides, at the moment the response starts,
    whether to commit; by default if there was no exception and the status is below 400.
    *options* are the `TransactionOptions` of all requests, or of those of one method (a
    mapping), or a function from the ASGI scope to them; routes override them. *retry*
    is the policy of requests that have `attempts`.
    Of several databases one is committed after the other, in the order given; with
    *twophase* all are committed or none, which PostgreSQL and MariaDB can do.
    The session is also at `request.state.<state_attribute>`; of several databases the
    first is there, and each at `request.state.<its name>`.

    A COMMIT that fails is answered by the application's own exception handlers; the
    response that the endpoint made is dropped, and its background tasks do not run.
    Where the application has no handler, some of unitwork's errors are answered here,
    and logged: no free connection (503), the deadline (504), an unknown outcome and a
    partial commit (500), as problem documents. `answer_errors=False` turns that off.
    *read_your_writes*, for databases with replicas, brings the token of a client's
    writes back with its next requests, whose reads then see them: `SignedCookie` or
    `SignedHeader` of `unitwork.replicas`, or a `TokenCarrier` of your own. With `False`
    a client may read what was there before its own write. Without replicas nothing is
    sent.
    *server_timing* decides, by the ASGI scope, whether a response has the header
    `Server-Timing`, with the time that its unit has waited for connections, executed
    statements and waited for COMMIT.
    Does nothing for a request that uses no session.

    Raises `UsageError` for arguments that can't work; inside an event loop, where
    Starlette makes its middleware, that fails the start of the server.

    .. versionadded:: 0.1
    """

    misconfigured: UsageError | None
    """Why it can't serve: the start of the server fails with that."""

    @reported_at_start
    def __init__(
        self,
        app: ASGIApp,
        db: Source | Sequence[Source],
        *,
        commit_when: CommitWhen = succeeded,
        options: Defaults | None = None,
        retry: RetryPolicy | None = None,
        state_attribute: str = "db",
        twophase: bool = False,
        answer_errors: bool = True,
        read_your_writes: TokenCarrier | Literal[False] | None = None,
        server_timing: ServerTiming | None = None,
    ) -> None:
        databases = _by_attribute(_each(db), state_attribute)
        self._own = tuple(dict.fromkeys(databases.values()))
        has_replicas = any(each.replicas is not None for each in self._own)
        config = MiddlewareConfig(
            commit_when=commit_when,
            defaults=defaults_of(options),
            retry=policy_of(retry),
            order=CommitOrder(self._own) if twophase else None,
            answer_errors=answer_errors,
            may_retry=may_retry(options) or has_replicas,
            has_replicas=has_replicas,
            carrier=_carrier_of(read_your_writes, self._own),
            server_timing=server_timing,
        )
        check_callable("commit_when", commit_when)
        if server_timing is not None:
            check_callable("server_timing", server_timing)
            for each in self._own:
                each.observers.require_reports()
        self._serving = app, config, databases

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"DBSessionMiddleware has no attribute {name!r}: it is not the "
                "application that it wraps. Write "
                "`app.add_middleware(DBSessionMiddleware, db=db)`, and go on with app"
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI says."""
        if self.misconfigured is not None:
            await refuse_to_serve(self.misconfigured, scope, receive, send)
        if redirection.enter is not None:
            entered = redirection.enter(scope)
            if entered is not None:
                with entered:
                    await self(scope, receive, send)
                return
        # One look-up for all: `__getattr__` makes each of them slow.
        app, config, databases = self._serving
        state = scope.get("state")
        outer: Connection | None = state.provider if type(state) is State else None
        if outer is not None:
            databases = uncovered(databases, outer)
        kind = scope["type"]
        if kind == "http" and databases:
            exchange = HTTPExchange(
                scope, receive, send, config, databases, outer, None
            )
            await exchange.serve(app)
            if exchange.failure is None:
                pass
            elif exchange.is_to_be_retried:
                await run_again(app, exchange, scope, send)
            else:
                await exchange.answer_failure(scope, receive, send)
        elif kind == "websocket" and databases:
            socket = WebSocket(scope, receive, send, config, databases, outer)
            await socket.serve(app)
        elif kind == "lifespan":
            janitor = None if config.order is None else Janitor(config.order)
            await run_lifespan(
                app, self._own, scope, receive, send, _databases_of, janitor
            )
        else:
            await app(scope, receive, send)


def _carrier_of(
    given: object, databases: Sequence[DatabaseCore]
) -> TokenCarrier | None:
    if given is False:
        return None
    if given is None:
        for database in databases:
            if database.replicas is not None:
                raise UsageError(
                    f"database {database.name!r} has replicas: give the middleware "
                    "read_your_writes=SignedCookie(secret) of unitwork.replicas, or "
                    "False if clients may read what was there before their own write"
                )
        return None
    if isinstance(given, type) or not isinstance(given, TokenCarrier):
        raise UsageError(
            f"read_your_writes is {described(given)}; give a SignedCookie, a "
            "SignedHeader or a TokenCarrier of your own, or False"
        )
    return given


def _each(db: Any) -> Sequence[object]:
    return [db] if isinstance(db, str | URL) or not isinstance(db, Sequence) else db


def _by_attribute(
    given: Sequence[object], state_attribute: str
) -> dict[str, DatabaseCore]:
    """The databases by the attributes of `request.state` where their sessions are."""
    found: dict[str, DatabaseCore] = {}
    for each in given:
        database = core_of(database_of(each))
        if found.get(database.name) is database:
            raise UsageError(f"db has database {database.name!r} twice; give it once")
        if database.name in found:
            raise UsageError(
                f"two databases are named {database.name!r}; give each its own name"
            )
        found[database.name] = database
    if not found:
        raise UsageError("db is empty; give at least one database")
    first = next(iter(found.values()))
    if found.get(state_attribute, first) is not first:
        raise UsageError(
            f"state_attribute is {state_attribute!r}, and so is the name of a database "
            "that is not the first; give another"
        )
    return {**found, state_attribute: first}


def _databases_of(thing: object) -> tuple[DatabaseCore, ...]:
    """Those of a middleware, or of what `add_middleware()` keeps to make one."""
    made: object = thing
    kind = getattr(thing, "cls", None)
    if isinstance(kind, type) and issubclass(kind, DBSessionMiddleware):
        given: Any = thing
        made = kind(_no_application, *given.args, **given.kwargs)
    if not isinstance(made, DBSessionMiddleware):
        return ()
    if made.misconfigured is not None:
        raise made.misconfigured
    return made._own  # pyright: ignore[reportPrivateUsage]  # of this module


async def _no_application(scope: Scope, receive: Receive, send: Send) -> None:
    """In place of the application of a middleware that serves nothing."""
