"""What can be said of a database's connections after something went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from anyio import to_thread
from sqlalchemy import text

from support.flavours import Flavour, Observer
from unitwork import DatabaseSettings
from unitwork.testing import check_idle

DEFERRED = {"unitwork_begin": "BEGIN"}  # five write locks are not to be had in SQLite


async def use_every_connection(flavour: Flavour) -> int:
    """Check out all connections of the pool at once and use each; count them."""
    size = flavour.db.pool_status().size
    if flavour.is_async:
        async with AsyncExitStack() as stack, asyncio.timeout(10):
            engine = flavour.db.engine.execution_options(**DEFERRED)
            for _ in range(size):
                connection = await stack.enter_async_context(engine.connect())
                await connection.execute(text("SELECT 1"))
    else:
        await to_thread.run_sync(_use_every, flavour, size)
    return int(size)


def _use_every(flavour: Flavour, size: int) -> None:
    engine = flavour.db.engine.execution_options(**DEFERRED)
    with ExitStack() as stack:
        for _ in range(size):
            connection = stack.enter_context(engine.connect())
            connection.execute(text("SELECT 1"))


async def drop_idle_connections(flavour: Flavour) -> None:
    """Let the next request connect anew."""
    await flavour.dispose()


async def eventually(true: Callable[[], Any], *, seconds: float = 10.0) -> None:
    """Wait until *true* says so; fail if it does not within *seconds*."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  # what is looked at knows no events
            await asyncio.sleep(0.005)


async def until_idle(flavour: Flavour) -> None:
    """Wait until the database is idle; fail, and say why it is not, if that is late."""
    with suppress(TimeoutError):
        await eventually(partial(_is_idle, flavour.db))
    check_idle(flavour.db)


def _is_idle(db: Any) -> bool:
    try:
        check_idle(db)
    except AssertionError:
        return False
    return True


async def check_pool_is_whole(flavour: Flavour) -> None:
    """Nothing is checked out or idle in transaction, and every connection works."""
    observer = Observer(flavour.url)
    assert flavour.db.pool_status().checked_out == 0
    await eventually(lambda: observer.in_transaction() == [])
    assert await use_every_connection(flavour) == flavour.db.pool_status().size
    assert flavour.db.pool_status().checked_out == 0


@asynccontextmanager
async def impatient(
    flavour: Flavour, *, url: str | None = None, **options: Any
) -> AsyncIterator[Flavour]:
    """The same database with a small pool, and endings that wait for a moment only.

    It connects to *url*, a way to that database with obstacles.
    """
    options = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 5, **options}
    settings = DatabaseSettings(end_timeout=0.2)
    another = replace(flavour, url=url or flavour.url)
    another = another.another(settings=settings, **options)
    another.url = flavour.url  # for observers
    yield another
    await until_idle(another)
    await check_pool_is_whole(another)
    await another.dispose()
