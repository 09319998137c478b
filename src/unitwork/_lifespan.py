"""The application's life, as the databases see it: check, drain, dispose."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread
from sqlalchemy import text

from ._ends import cut_off

if TYPE_CHECKING:
    from ._source import Source
    from .recovery import Janitor

__all__ = ["check", "drain_and_dispose", "live"]

log = logging.getLogger("unitwork")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


_LAST = {
    "lifespan.startup.failed",
    "lifespan.shutdown.complete",
    "lifespan.shutdown.failed",
}


class _CanNotStart(BaseException):
    """Unwinds the application before it has begun to start."""


async def live(
    app: ASGIApp,
    sources: Sequence[Source],
    scope: Scope,
    receive: Receive,
    send: Send,
    janitor: Janitor | None = None,
) -> None:
    """Run *app* for its life: the databases are there before it, and go after it.

    One that knows no lifespan (it raises at once, or returns) is given one.
    """
    life = _Life(sources, receive, send, janitor)
    with contextlib.suppress(_CanNotStart):
        try:
            await app(scope, life.receive, life.send)
        except Exception as error:
            if life.heard:
                await life.end()
                raise
            log.info("the application has no lifespan of its own: %r", error)
        await life.go_on()


class _Life:
    """What a server and an application tell each other, and the databases in it."""

    def __init__(
        self,
        sources: Sequence[Source],
        receive: Receive,
        send: Send,
        janitor: Janitor | None,
    ) -> None:
        self._sources = sources
        self._janitor = janitor
        self._receive = receive
        self._send = send
        self._told: set[str] = set()
        self._over = False
        self.heard = False
        """Whether the application has asked what to do."""

    async def receive(self) -> Message:
        self.heard = True
        message = await self._receive()
        self._told.add(message["type"])
        if message["type"] == "lifespan.startup":
            reason = await _reason_not_to_start(self._sources)
            if reason is not None:
                await self.send({"type": "lifespan.startup.failed", "message": reason})
                raise _CanNotStart
            if self._janitor is not None:
                self._janitor.start()
        return message

    async def send(self, message: Message) -> None:
        self._told.add(message["type"])
        if message["type"] in _LAST:
            await self.end()
        await self._send(message)

    async def end(self) -> None:
        if not self._over:
            self._over = True
            if self._janitor is not None:
                await self._janitor.stop()
            await drain_and_dispose(self._sources)

    async def go_on(self) -> None:
        """Say what the application has left unsaid."""
        for moment in ("lifespan.startup", "lifespan.shutdown"):
            if self._over or f"{moment}.complete" in self._told:
                continue
            if moment not in self._told:
                await self.receive()
            await self.send({"type": f"{moment}.complete"})


async def _reason_not_to_start(sources: Sequence[Source]) -> str | None:
    for source in sources:
        if not source.settings.check_at_startup:
            continue
        try:
            await check(source)
        except Exception as error:
            return f"database {source.name!r} can't be reached: {error}"
    return None


async def check(source: Source) -> None:
    """Connect, or raise what the driver raises."""
    if source.is_async:
        async with source.async_engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    else:
        await to_thread.run_sync(_check, source, limiter=CapacityLimiter(1))


def _check(source: Source) -> None:
    with source.factory.engine.connect() as connection:
        connection.execute(text("SELECT 1"))


async def drain_and_dispose(sources: Sequence[Source]) -> None:
    """Wait for open units, each database within its limit; close what is ours."""
    await asyncio.gather(*map(_drain, sources))
    for source in sources:
        if not source.owns_engine or source.override is not None:
            continue  # somebody else's, or in the hands of a test
        if source.is_async:
            await source.async_engine.dispose()
        else:
            await to_thread.run_sync(
                source.factory.engine.dispose, limiter=CapacityLimiter(1)
            )


async def _drain(source: Source) -> None:
    """Let the open units end by themselves, and then roll back those that have not."""
    left = await source.drain()
    if not left:
        return
    log.warning(
        "%d units of database %r were still open after %g seconds: rolled back",
        len(left),
        source.name,
        source.settings.drain_timeout,
    )
    endings = (unit._run(cut_off(unit)) for unit in left)
    for error in await asyncio.gather(*endings, return_exceptions=True):
        if error is not None:
            log.error("a unit could not be rolled back at shutdown", exc_info=error)
