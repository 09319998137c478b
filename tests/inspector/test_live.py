"""The live view: the units that are open now, and what they wait for."""

from __future__ import annotations

import asyncio
import re
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from support.asgi import call
from support.flavours import MARIADB, SERVERS, Flavour, only
from support.holding import running
from support.inspecting import LOCAL, held, inspected, look
from support.models import add_item, names
from support.pool import eventually
from unitwork import AsyncDatabase, current_unit
from unitwork._inspector.locks import Locks
from unitwork._inspector.phase import is_waiting
from unitwork.inspector import Inspector

LOCK = text("UPDATE item SET name = 'two' WHERE name = 'one'")


async def test_shows_a_unit_as_long_as_it_is_open(flavour: Flavour) -> None:
    with inspected(flavour) as app:
        async with held(flavour):
            [unit] = (await look(app, "live"))["units"]
        after = await look(app, "live")

    assert (unit["name"], unit["phase"]) == (
        "transaction() block",
        "idle in transaction",
    )
    assert after["units"] == []


async def test_shows_the_line_that_took_the_connection(flavour: Flavour) -> None:
    with inspected(flavour) as app:
        async with held(flavour):
            [unit] = (await look(app, "live"))["units"]

    [connection] = unit["connections"]
    assert ".py:" in connection["at"]
    assert connection["taken"] <= connection["idle_since"]


async def test_shows_the_connections_of_the_pool(flavour: Flavour) -> None:
    with inspected(flavour) as app:
        async with held(flavour):
            [pool] = (await look(app, "live"))["databases"]

    assert (pool["name"], pool["size"], pool["limit"]) == ("default", 5, 5)
    assert (pool["in_use"], pool["waiting"]) == (1, 0)


async def test_shows_a_unit_that_has_released_its_connection(flavour: Flavour) -> None:
    with inspected(flavour) as app:
        async with flavour.block():
            unit = current_unit()
            async with unit.outside("the model"):
                [shown] = (await look(app, "live"))["units"] or [None]
            await flavour.do(flavour.db.current, names)

    assert shown is None or shown["about"] == "the model"


@only("asyncpg", "psycopg")
async def test_an_exhausted_pool_leads_to_the_line_that_holds_it(
    flavour: Flavour,
) -> None:
    small = flavour.another(pool_size=1, max_overflow=0, pool_timeout=10)
    with inspected(small) as app:
        request = call(app, "GET", "/items")
        async with held(small), running(request, Context()) as task:
            await eventually(lambda: len(_open_units(small.db)) == 2)
            await eventually(lambda: _waiting(small.db) == 1)
            live = await look(app, "live")
        await asyncio.wait((task,))
    await small.dispose()

    phases = [unit["phase"] for unit in live["units"]]
    assert phases == ["idle in transaction", "waiting for a connection"]
    assert live["databases"][0]["waiting"] == 1
    [holding] = live["units"][0]["connections"]
    assert re.search(r"support/\w+\.py:\d+ in \w+\(\)", holding["at"])


def _waiting(db: Any) -> int:
    units = _open_units(db)
    return sum(is_waiting(session) for unit in units for session in unit.sessions)


def _open_units(db: Any) -> set[Any]:
    return db._core.open_units  # type: ignore[no-any-return]


@only(*SERVERS)
@pytest.mark.usefixtures("flavour")
async def test_shows_which_unit_blocks_another(flavour: Flavour) -> None:
    await flavour.work(add_item)
    with inspected(flavour) as app:
        async with flavour.block() as session:
            await flavour.do(session, lambda session: session.execute(LOCK))
            blocked = flavour.work(lambda session: session.execute(LOCK))
            async with running(blocked) as task:
                found = await _blockers(app)
                await flavour.do(session, lambda session: session.rollback())
                await asyncio.wait((task,))
        [first, *_] = (await look(app, "timeline"))["units"][::-1]

    assert [each["unit"] for each in found] == [first["id"]]
    assert 0 <= found[0]["seconds"] < 60


@only("asyncpg", *MARIADB)
async def test_finds_that_out_without_a_connection_of_the_pool(
    flavour: Flavour,
) -> None:
    await flavour.work(add_item)
    small = flavour.another(pool_size=2, max_overflow=0)
    with inspected(small) as app:
        async with small.block() as session:
            await small.do(session, lambda session: session.execute(LOCK))
            async with running(small.work(lambda x: x.execute(LOCK))) as task:
                found = await _blockers(app)
                [pool] = (await look(app, "live"))["databases"]
                await small.do(session, lambda session: session.rollback())
                await asyncio.wait((task,))
    await small.dispose()

    assert len(found) == 1
    assert (pool["in_use"], pool["lock_query"]) == (2, "")


async def _blockers(app: object) -> list[dict[str, object]]:
    """Look until a unit is blocked, as a page does; give what blocks it."""
    async with asyncio.timeout(10):
        while True:
            for unit in (await look(app, "live"))["units"]:
                for connection in unit["connections"]:
                    if connection["blocked_by"]:
                        return list(connection["blocked_by"])
            await asyncio.sleep(0.1)


async def test_shows_a_server_that_can_not_be_queried_for_locks() -> None:
    locks = Locks(
        AsyncDatabase("postgresql+asyncpg://u@127.0.0.1:1/d").engine.sync_engine
    )

    await locks.refresh({1})
    await eventually(lambda: locks.trouble)

    assert (locks.found, locks.trouble) == ({}, "ConnectionRefusedError")


@only("asyncpg")
async def test_shows_the_pool_of_each_replica(flavour: Flavour) -> None:
    db = AsyncDatabase(flavour.url, replicas=[flavour.url], pool_size=3)
    inspector: Any = Inspector(db)
    async with db.transaction() as session:
        await session.execute(text("SELECT 1"))
        reply = await call(inspector, "GET", "/live.json", headers=LOCAL)
    inspector.close()
    await db.dispose()

    pools = {each["name"]: each["in_use"] for each in reply.json["databases"]}
    assert pools == {"default": 1, "default, replica 1": 0}


async def test_shows_for_which_replica_a_unit_waits(tmp_path: Path) -> None:
    urls = [f"sqlite+aiosqlite:///{tmp_path}/{name}.db" for name in "ab"]
    db = AsyncDatabase(urls[0], replicas=urls[1:], pool_size=1, max_overflow=0)
    inspector: Any = Inspector(db)

    async def read() -> None:
        async with db.transaction(read_only=True) as session:
            await session.execute(text("SELECT 1"))

    async with db.transaction(read_only=True) as session:
        await session.execute(text("SELECT 1"))
        async with running(read(), Context()) as task:
            await eventually(lambda: _waiting(db) == 1)
            reply = await call(inspector, "GET", "/live.json", headers=LOCAL)
    await asyncio.wait((task,))
    inspector.close()
    await db.dispose()

    pools = {each["name"]: each["waiting"] for each in reply.json["databases"]}
    assert pools == {"default": 0, "default, replica 1": 1}
