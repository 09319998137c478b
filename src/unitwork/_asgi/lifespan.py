"""The lifespan of an application: databases are checked, drained, disposed of."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from anyio import CapacityLimiter, to_thread
from sqlalchemy.util import greenlet_spawn

from .._concurrency.worker import on_event_loop
from .._session.database_core import DatabaseCore
from .._session.ping import aping, ping
from .._twophase.janitor import Janitor
from .._unit.endings import shut_down
from .._unit.running import run_ending
from .._unit.unit import Unit
from ..errors import DatabaseUnavailableError, UsageError
from .event_loop import ONLY_ASYNCIO
from .misconfiguration import refuse_to_serve
from .names import DatabasesOf, check_mounted, joined
from .types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["check", "drain_and_dispose", "run_lifespan"]

log = logging.getLogger("unitwork")

_LAST = {
    "lifespan.startup.failed",
    "lifespan.shutdown.complete",
    "lifespan.shutdown.failed",
}
_NAMES = "unitwork.databases"
"""Where the scope of a lifespan has the databases of middleware further out."""
_CHECK_LIMIT = 30.0  # seconds for which the start waits for a database


class _CanNotStart(BaseException):
    """Unwinds the application before it has begun to start."""


async def run_lifespan(
    app: ASGIApp,
    databases: Sequence[DatabaseCore],
    scope: Scope,
    receive: Receive,
    send: Send,
    databases_of: DatabasesOf,
    janitor: Janitor | None = None,
) -> None:
    """Run the lifespan of *app*; check databases before it, dispose of them after it.

    For an application without a lifespan (it raises at once, or returns) it is handled
    here. Raises what is wrong with the databases, once it has been sent.
    """
    if not on_event_loop():
        await receive()
        await send({"type": "lifespan.startup.failed", "message": ONLY_ASYNCIO})
        raise UsageError(ONLY_ASYNCIO)
    try:
        names = joined(scope.get(_NAMES, {}), databases)
        check_mounted(scope.get("app", app), names, databases_of)
    except UsageError as error:
        await refuse_to_serve(error, scope, receive, send)
    life = _Life(databases, receive, send, janitor)
    with contextlib.suppress(_CanNotStart):
        await _run(app, life, {**scope, _NAMES: names})
    if life.failure is not None:
        # As Starlette does it; its TestClient would go on, and hang at the end.
        raise life.failure


async def _run(app: ASGIApp, life: _Life, scope: Scope) -> None:
    try:
        await app(scope, life.receive, life.send)
    except Exception as error:
        if life.app_has_lifespan:
            await life.end()
            raise
        log.info("the application has no lifespan of its own: %r", error)
    await life.go_on()


class _Life:
    """The lifespan messages between a server and an application, and the databases."""

    def __init__(
        self,
        databases: Sequence[DatabaseCore],
        receive: Receive,
        send: Send,
        janitor: Janitor | None,
    ) -> None:
        self._databases = databases
        self._janitor = janitor
        self._receive = receive
        self._send = send
        self._seen: set[str] = set()
        self._over = False
        self.app_has_lifespan = False
        """Whether the application has received a message."""
        self.failure: DatabaseUnavailableError | None = None
        """Why the application does not start."""

    async def receive(self) -> Message:
        self.app_has_lifespan = True
        message = await self._receive()
        self._seen.add(message["type"])
        if message["type"] == "lifespan.startup":
            try:
                await check(self._databases)
            except DatabaseUnavailableError as error:
                self.failure = error
                failed = {"type": "lifespan.startup.failed", "message": str(error)}
                await self.send(failed)
                raise _CanNotStart from error
            if self._janitor is not None:
                self._janitor.start()
        return message

    async def send(self, message: Message) -> None:
        self._seen.add(message["type"])
        if message["type"] in _LAST:
            await self.end()
        await self._send(message)

    async def end(self) -> None:
        if not self._over:
            self._over = True
            if self._janitor is not None:
                await self._janitor.stop()
            await drain_and_dispose(self._databases)

    async def go_on(self) -> None:
        """Send the messages that the application has not sent."""
        for moment in ("lifespan.startup", "lifespan.shutdown"):
            if self._over or f"{moment}.complete" in self._seen:
                continue
            if moment not in self._seen:
                await self.receive()
            await self.send({"type": f"{moment}.complete"})


async def check(databases: Sequence[DatabaseCore]) -> None:
    """Ping those that have `check_at_startup`. Raises `DatabaseUnavailableError`."""
    for database in databases:
        if not database.settings.check_at_startup:
            continue
        if database.is_async:
            await aping(database, _CHECK_LIMIT)
        else:
            one = CapacityLimiter(1)
            await to_thread.run_sync(ping, database, _CHECK_LIMIT, limiter=one)


async def drain_and_dispose(databases: Sequence[DatabaseCore]) -> None:
    """Wait for open units, with each database's limit; dispose of our own engines."""
    await asyncio.gather(*map(_drain, databases))
    for database in databases:
        if database.override is not None:
            continue
        for engine in database.own_engines:
            if database.is_async:
                await greenlet_spawn(engine.dispose)
            else:
                await to_thread.run_sync(engine.dispose, limiter=CapacityLimiter(1))


async def _drain(database: DatabaseCore) -> None:
    """Let the open units end by themselves; then roll back those that have not."""
    limit = database.settings.drain_timeout
    left = [
        unit
        for unit in await database.open_units.drain(limit)
        if isinstance(unit, Unit) and unit.cut_off_by is None
    ]
    if not left:
        return
    log.warning(
        "%d units of database %r were still open after %g seconds: rolled back",
        len(left),
        database.name,
        limit,
    )
    endings = (run_ending(unit, shut_down(unit)) for unit in left)
    for error in await asyncio.gather(*endings, return_exceptions=True):
        if error is not None:
            log.error("a unit could not be rolled back at shutdown", exc_info=error)
