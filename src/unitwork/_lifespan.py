"""The application's life, as the databases see it: check, drain, dispose."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread
from sqlalchemy import text

if TYPE_CHECKING:
    from ._source import Source

__all__ = ["check", "drain_and_dispose", "lifespan"]

log = logging.getLogger("unitwork")

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


def lifespan(sources: Sequence[Source], send: Send) -> Send:
    """Wrap *send*: databases start before the application and stop after it."""

    async def send_with_databases(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            for source in sources:
                if source.settings.check_at_startup:
                    message = await _checked(source, message)
        elif message["type"] in (
            "lifespan.shutdown.complete",
            "lifespan.shutdown.failed",
        ):
            await drain_and_dispose(sources)
        await send(message)

    return send_with_databases


async def _checked(source: Source, message: Message) -> Message:
    """Give *message*, or the one that says why the application can't start."""
    try:
        await check(source)
    except Exception as error:
        reason = f"database {source.name!r} can't be reached: {error}"
        log.error("%s", reason)
        return {"type": "lifespan.startup.failed", "message": reason}
    return message


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
