"""What fails while an engine connects for the first time is raised as what it is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import event

from support.cancelling import at_each_suspension, natively
from support.flavours import SERVERS, Flavour, Observer, only
from support.meaning import meaning
from support.models import names
from support.pool import check_pool_is_whole

pytestmark = [
    pytest.mark.anyio,
    # As in the tests of cancelled requests: what aiosqlite's thread has opened.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <sqlite3.Connection"
        ":pytest.PytestUnraisableExceptionWarning"
    ),
]
SMALL = {"pool_size": 1, "max_overflow": 0}
# A try at TLS that is cancelled makes asyncpg complain to the event loop.
OPTIONS: dict[str, Any] = {"asyncpg": {"connect_args": {"ssl": False}}}


@only("psycopg-async", "asyncpg", "asyncmy", "aiosqlite")
async def test_a_cancellation_at_any_moment_of_it_is_raised_as_what_it_is(
    flavour: Flavour,
) -> None:
    raised: set[type[BaseException]] = set()
    engines: list[Flavour] = []

    async def connect() -> None:
        engines.append(flavour.another(**SMALL, **OPTIONS.get(flavour.name, {})))
        try:
            await engines[-1].work(names)
        except BaseException as error:
            raised.add(type(error))
            raise

    async for _ in at_each_suspension(lambda _: connect(), natively):
        await check_pool_is_whole(engines[-1])
        await engines[-1].dispose()

    assert raised == {asyncio.CancelledError}


@only(*SERVERS)
async def test_a_connection_that_is_lost_meanwhile_is_reported_as_lost(
    flavour: Flavour, observer: Observer
) -> None:
    first = flavour.another(**SMALL)
    event.listen(
        first.sync_engine, "do_execute", lambda *_: observer.terminate_all(), once=True
    )

    found = await meaning(first, names)

    assert found.disconnected
    await first.work(names)
    await check_pool_is_whole(first)
    await first.dispose()
