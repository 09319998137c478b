"""A client of MariaDB that has written sees that, from whichever server it reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from anyio import to_thread
from fastapi import FastAPI
from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

from servers.mariadb_replication import MariadbReplication
from support.flavours import FLAVOURS, MARIADB, Flavour, kind_of
from support.models import add_item, names
from support.replicated import SECRET, token_of_write
from unitwork import (
    DatabaseSettings,
    DBSessionMiddleware,
    ReadOnlyError,
    current_unit,
    transactional,
)
from unitwork.replicas import SignedCookie

pytestmark = pytest.mark.anyio
each_driver = pytest.mark.parametrize("driver", MARIADB)

Seen = tuple[list[str], bool]
WAITING = """
    SELECT count(*) FROM information_schema.processlist
    WHERE info LIKE '%MASTER_GTID_WAIT%' AND id <> connection_id()
"""
SELECTS = """
    SELECT variable_value FROM information_schema.global_status
    WHERE variable_name = 'Com_select'
"""


def address(url: str, driver: str, **changes: Any) -> str:
    found = make_url(url).set(drivername=FLAVOURS[driver], **changes)
    if driver == "pymysql":
        found = found.update_query_dict({"ssl_disabled": "true"})
    return found.render_as_string(hide_password=False)


def database(
    driver: str, servers: MariadbReplication, user: str = "root", **options: Any
) -> Flavour:
    """A database of *servers*; the *options* are settings, or those of the engine."""
    known = DatabaseSettings.__dataclass_fields__
    settings = {key: options.pop(key) for key in list(options) if key in known}
    url = address(servers.primary_url, driver)
    replicas = [address(each, driver, username=user) for each in servers.replica_urls]
    db = kind_of(driver)(
        url, replicas=replicas, settings=DatabaseSettings(**settings), **options
    )
    return Flavour(driver, url, db)


@pytest.fixture(params=MARIADB)
async def replicated(
    request: pytest.FixtureRequest,
    mariadb_replication: MariadbReplication,
    anyio_backend: str,
) -> AsyncIterator[Flavour]:
    flavour = database(request.param, mariadb_replication)
    assert await read(flavour) == ([], True)
    yield flavour
    await flavour.dispose()


def seen(session: Session) -> Seen:
    """The names of the items, and whether a replica has returned them."""
    return names(session), session.scalar(text("SELECT @@server_id")) != 1


async def read(flavour: Flavour, token: str | None = None, **options: Any) -> Seen:
    def body(session: Session) -> Seen:
        if token is not None:
            current_unit().read_after(token)
        return seen(session)

    found: Seen = await flavour.work(body, read_only=True, **options)
    return found


async def test_reads_its_own_write_though_the_replica_has_not_replayed_it(
    replicated: Flavour, mariadb_replication: MariadbReplication
) -> None:
    mariadb_replication.pause(0)
    token = await token_of_write(replicated, "one")

    assert await read(replicated, token) == (["one"], False)
    assert await read(replicated) == ([], True)


async def test_a_replica_that_was_ahead_of_the_promoted_one_is_no_proof(
    replicated: Flavour, mariadb_replication: MariadbReplication
) -> None:
    """It has replayed higher numbers than those of the primary, of another server."""
    replica = mariadb_replication.replicas[0]
    replica.ask("STOP SLAVE")
    before = replica.ask("SELECT @@gtid_slave_pos")
    replica.ask("SET GLOBAL gtid_slave_pos = '0-9-1000000'")
    token = await token_of_write(replicated, "one")
    found = await read(replicated, token)
    replica.ask(f"SET GLOBAL gtid_slave_pos = '{before}'")

    assert found == (["one"], False)


@pytest.mark.parametrize("level", [None, "READ COMMITTED", "REPEATABLE READ"])
async def test_reads_its_own_write_from_the_replica_once_it_has_replayed_it(
    replicated: Flavour, mariadb_replication: MariadbReplication, level: str | None
) -> None:
    token = await token_of_write(replicated, "one")
    mariadb_replication.wait_caught_up()

    assert await read(replicated, token, isolation_level=level) == (["one"], True)


@each_driver
async def test_the_snapshot_is_taken_after_the_replica_has_replayed_it(
    driver: str, mariadb_replication: MariadbReplication
) -> None:
    flavour = database(driver, mariadb_replication, replica_wait=30.0)
    replica = mariadb_replication.replicas[0]
    assert await read(flavour) == ([], True)
    mariadb_replication.pause(0)
    token = await token_of_write(flavour, "one")
    reading = asyncio.create_task(read(flavour, token))
    while not await to_thread.run_sync(replica.ask, WAITING):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    mariadb_replication.resume(0)

    assert await reading == (["one"], True)
    await flavour.dispose()


async def test_no_read_misses_the_write_before_it(replicated: Flavour) -> None:
    found = []
    for number in range(30):
        token = await token_of_write(replicated, f"{number}")
        found.append(await read(replicated, token))

    assert [len(items) for items, _ in found] == list(range(1, 31))
    assert any(is_replica for _, is_replica in found)


async def test_a_cookie_carries_the_position_and_a_forged_one_is_ignored(
    replicated: Flavour, mariadb_replication: MariadbReplication
) -> None:
    app = FastAPI()
    app.add_middleware(
        DBSessionMiddleware, db=replicated.db, read_your_writes=SignedCookie(SECRET)
    )
    app.get("/")(transactional(read_only=True)(replicated.endpoint(seen)))
    app.post("/")(replicated.endpoint(lambda session: add_item(session).id))
    mariadb_replication.pause(0)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        value = (await client.post("/")).cookies["unitwork-token"]
        assert (await client.get("/")).json() == [["one"], False]
        client.cookies.clear()
        client.cookies.set("unitwork-token", value.replace("-1-", "-1-1"))
        assert (await client.get("/")).json() == [[], True]


@pytest.mark.parametrize("position", ["1:1:1f", "7-1-1", "0-1-99999"])
async def test_a_position_that_the_replica_does_not_know_is_read_from_the_primary(
    replicated: Flavour, position: str
) -> None:
    token = await token_of_write(replicated, "one")
    name, _, until = token.split(".")

    assert await read(replicated, f"{name}.{position}.{until}") == (["one"], False)


@each_driver
async def test_what_is_not_in_the_log_of_the_primary_is_read_from_the_primary(
    driver: str, mariadb_replication: MariadbReplication
) -> None:
    arguments = {"init_command": "SET SESSION sql_log_bin = 0"}
    flavour = database(driver, mariadb_replication, connect_args=arguments)
    token = await token_of_write(flavour, "one")

    assert await read(flavour, token) == (["one"], False)
    await flavour.dispose()


@each_driver
async def test_only_writes_beside_replicas_take_a_round_trip_more(
    driver: str, mariadb_replication: MariadbReplication
) -> None:
    primary, counts = mariadb_replication.primary, []
    flavour = database(driver, mariadb_replication)
    alone = Flavour(driver, flavour.url, kind_of(driver)(flavour.url))
    for each, work in [
        (flavour, lambda session: add_item(session, "one")),
        (alone, lambda session: add_item(session, "two")),
        (flavour, names),
        (alone, names),
    ]:
        await each.work(names)  # opens the connection
        before = primary.ask(SELECTS)
        await each.work(work)
        counts.append(int(primary.ask(SELECTS)) - int(before) - 1)
        await each.dispose()

    assert counts == [1, 0, 1, 1]


async def test_a_write_on_the_replica_is_refused(replicated: Flavour) -> None:
    with pytest.raises(ReadOnlyError):
        await replicated.work(add_item, read_only=True)


async def test_a_replica_that_was_killed_costs_no_error_and_is_used_again(
    replicated: Flavour, mariadb_replication: MariadbReplication
) -> None:
    replica = mariadb_replication.replicas[0]
    replica.kill()
    assert await read(replicated) == ([], False)
    replica.start()

    async with asyncio.timeout(20):
        while not (await read(replicated))[1]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@each_driver
async def test_a_replica_that_was_promoted_is_not_read(
    driver: str, mariadb_replication: MariadbReplication
) -> None:
    flavour = database(driver, mariadb_replication)
    mariadb_replication.promote(0)

    assert await read(flavour) == ([], False)
    assert "promoted" in flavour.db.replica_status()[0].reason
    await flavour.dispose()


@each_driver
async def test_a_replica_that_replays_nothing_is_not_read_for_longer_than_the_limit(
    driver: str, mariadb_replication: MariadbReplication
) -> None:
    flavour = database(driver, mariadb_replication, replica_max_lag=0.001)
    mariadb_replication.pause(0)

    assert await read(flavour) == ([], False)
    assert "has stopped" in flavour.db.replica_status()[0].reason
    await flavour.dispose()


@each_driver
async def test_without_the_privilege_to_see_the_lag_a_replica_is_read_as_well(
    driver: str, mariadb_replication: MariadbReplication
) -> None:
    mariadb_replication.primary.ask("CREATE OR REPLACE USER reader@'%'")
    mariadb_replication.primary.ask("GRANT SELECT ON test.* TO reader@'%'")
    flavour = database(driver, mariadb_replication, "reader")
    token = await token_of_write(flavour, "one")
    mariadb_replication.wait_caught_up()

    assert await read(flavour, token) == (["one"], True)
    assert flavour.db.replica_status()[0].lag is None
    await flavour.dispose()


async def test_a_replica_that_dies_in_a_request_costs_no_error(
    replicated: Flavour, mariadb_replication: MariadbReplication
) -> None:
    app, acts = FastAPI(), [mariadb_replication.replicas[0].kill]
    app.add_middleware(DBSessionMiddleware, db=replicated.db, read_your_writes=False)

    def read_twice(session: Session) -> tuple[Seen, Seen, int]:
        first = seen(session)
        for act in acts:
            act()
        acts.clear()
        return first, seen(session), current_unit().attempt

    app.get("/")(transactional(read_only=True)(replicated.endpoint(read_twice)))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        reply = await client.get("/")

    assert (reply.status_code, reply.json()) == (200, [[[], False], [[], False], 2])
