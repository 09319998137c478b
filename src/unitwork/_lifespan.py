"""The application's life, as the databases see it: check, drain, dispose."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread
from sqlalchemy import text

if TYPE_CHECKING:
    from ._source import Source

__all__ = ["check", "drain_and_dispose", "live"]

log = logging.getLogger("unitwork")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class _CanNotStart(BaseException):
    """Unwinds the application before it has begun to start."""


async def live(
    app: ASGIApp,
    sources: Sequence[Source],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Run *app* for its life: the databases are there before it, and go after it."""

    async def receive_once_checked() -> Message:
        message = await receive()
        if message["type"] == "lifespan.startup":
            reason = await _reason_not_to_start(sources)
            if reason is not None:
                await send({"type": "lifespan.startup.failed", "message": reason})
                raise _CanNotStart
        return message

    async def send_after_drain(message: Message) -> None:
        if message["type"] in (
            "lifespan.shutdown.complete",
            "lifespan.shutdown.failed",
        ):
            await drain_and_dispose(sources)
        await send(message)

    with contextlib.suppress(_CanNotStart):
        await app(scope, receive_once_checked, send_after_drain)


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
    for source in sources:
        left = await source.drain()
        if left:
            log.warning(
                "%d units of database %r were still open after %g seconds",
                left,
                source.name,
                source.settings.drain_timeout,
            )
        if not source.owns_engine or source.override is not None:
            continue  # somebody else's, or in the hands of a test
        if source.is_async:
            await source.async_engine.dispose()
        else:
            await to_thread.run_sync(
                source.factory.engine.dispose, limiter=CapacityLimiter(1)
            )
