"""A replica that is gone, behind, in conflict or promoted costs no error."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from anyio import to_thread
from fastapi import FastAPI
from sqlalchemy.orm import Session

from servers.postgresql_replication import Replication
from support.flavours import POSTGRESQL, Flavour, only
from support.models import names
from support.replicated import (
    is_replica,
    port,
    port_of,
    replicated_flavour,
    with_driver,
)
from unitwork import (
    DatabaseUnavailableError,
    DBSessionMiddleware,
    Outcome,
    current_unit,
    transactional,
)

pytestmark = pytest.mark.anyio
few = pytest.mark.parametrize("replicated", ["psycopg", "asyncpg"], indirect=True)
"""Servers that were killed or promoted have to be made anew, which takes seconds."""


def usable(flavour: Flavour) -> list[bool]:
    return [each.usable for each in flavour.db.replica_status()]


async def read_until_usable(flavour: Flavour) -> None:
    async with asyncio.timeout(10):
        while not all(usable(flavour)):
            await flavour.work(names, read_only=True)
            await asyncio.sleep(0.02)


@few
async def test_a_replica_that_was_killed_costs_no_error(
    replicated: Flavour, replication: Replication
) -> None:
    for _ in range(4):  # fills the pools of both
        await replicated.work(names, read_only=True)
    replication.kill(0)
    ports = {await replicated.work(port, read_only=True) for _ in range(8)}

    assert ports == {port_of(replication.replica_urls[1])}


@few
async def test_without_any_replica_the_primary_is_read(
    replicated: Flavour, replication: Replication
) -> None:
    await replicated.work(names, read_only=True)
    replication.kill(0)
    replication.kill(1)

    assert not await replicated.work(is_replica, read_only=True)
    assert usable(replicated) == [False, False]


@pytest.mark.parametrize("name", ["psycopg", "asyncpg"])
async def test_without_any_replica_it_is_unavailable_if_that_is_wanted(
    name: str, replication: Replication
) -> None:
    flavour = replicated_flavour(name, replication, replica_fallback=False)
    replication.kill(0)
    replication.kill(1)

    with pytest.raises(DatabaseUnavailableError, match="no replica of database"):
        await flavour.work(names, read_only=True)
    await flavour.dispose()


@few
async def test_a_replica_is_used_again_once_it_is_well(
    replicated: Flavour, replication: Replication
) -> None:
    replication.kill(0)
    for _ in range(8):
        await replicated.work(names, read_only=True)
    assert usable(replicated)[0] is False
    replication.start(0)

    await read_until_usable(replicated)


@few
async def test_a_replica_that_was_promoted_is_not_read(
    replicated: Flavour, replication: Replication
) -> None:
    replication.promote(0)
    ports = {await replicated.work(port, read_only=True) for _ in range(8)}

    assert ports == {port_of(replication.replica_urls[1])}
    assert "promoted" in replicated.db.replica_status()[0].reason


@pytest.mark.parametrize("name", POSTGRESQL)
async def test_a_replica_that_lags_too_far_is_not_read(
    name: str, replication: Replication
) -> None:
    flavour = replicated_flavour(name, replication, replica_max_lag=0.001)
    replication.pause(0)
    replication.pause(1)
    replication.primary.execute("INSERT INTO item (name) VALUES ('one')")
    received = "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()"
    for server in replication.servers[:-1]:
        server.wait_for(received, "has not received what was written")

    assert not await flavour.work(is_replica, read_only=True)
    assert "lags" in flavour.db.replica_status()[0].reason
    await flavour.dispose()


@only("asyncpg")
async def test_a_replica_behind_a_slow_link_lags_though_it_has_replayed_all(
    flavour: Flavour, replication: Replication
) -> None:
    """What it has replayed was sent long ago: it can't know what has been since."""
    primary, replica = replication.primary, replication.servers[0]
    replication.freeze(0)
    sent = primary.ask("SELECT CAST(clock_timestamp() AS text)")
    primary.execute("INSERT INTO item (name) VALUES ('one')")
    primary.wait_for(f"SELECT clock_timestamp() > '{sent}'::timestamptz + '2 s'", "")
    replication.thaw(0)
    replica.wait_for("SELECT count(*) = 1 FROM item", "has not replayed it")
    urls = [with_driver(replica.url, flavour.name)]
    db = replicated_flavour(
        flavour.name, replication, replicas=urls, replica_max_lag=1.0
    )

    assert not await db.work(is_replica, read_only=True)
    assert "lags" in db.db.replica_status()[0].reason
    await db.dispose()


async def read_slowly(
    replicated: Flavour, replication: Replication, act: Any
) -> tuple[int, Any]:
    """A read-only request of two statements, with *act* between them."""
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=replicated.db, read_your_writes=False)
    acts = [act]

    def read(session: Session) -> dict[str, Any]:
        first, before = is_replica(session), names(session)
        if acts:
            acts.pop()(port(session))
        same = names(session) == before
        return {"replica": first, "same": same, "attempt": current_unit().attempt}

    app.get("/")(transactional(read_only=True)(replicated.endpoint(read)))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        reply = await client.get("/")
    return reply.status_code, reply.json()


@few
async def test_a_replica_that_dies_in_a_request_costs_no_error(
    replicated: Flavour, replication: Replication
) -> None:
    ports = [port_of(url) for url in replication.replica_urls]

    def kill(used: int) -> None:
        replication.kill(ports.index(used))

    reply = await read_slowly(replicated, replication, kill)

    assert reply == (200, {"replica": False, "same": True, "attempt": 2})


@few
async def test_a_recovery_conflict_in_a_request_costs_no_error(
    replicated: Flavour, replication: Replication
) -> None:
    ports = [port_of(url) for url in replication.replica_urls]

    def conflict(used: int) -> None:
        i = ports.index(used)
        replication.configure(i, max_standby_streaming_delay="1ms")
        replication.primary.execute("ALTER TABLE item ADD extra int")
        replication.wait_caught_up()

    reply = await read_slowly(replicated, replication, conflict)

    assert reply == (200, {"replica": False, "same": True, "attempt": 2})


@few
async def test_a_replica_that_dies_before_commit_costs_no_error(
    replicated: Flavour, replication: Replication
) -> None:
    ports = [port_of(url) for url in replication.replica_urls]
    units = []

    def read(session: Session) -> list[str]:
        units.append(current_unit())
        found = names(session)
        replication.kill(ports.index(port(session)))
        return found

    assert await replicated.work(read, read_only=True) == []
    assert units[0].outcome is Outcome.COMMITTED


@few
async def test_a_replica_that_dies_before_a_commit_by_hand_costs_no_error(
    replicated: Flavour, replication: Replication
) -> None:
    ports = [port_of(url) for url in replication.replica_urls]

    def read(session: Session) -> bool:
        replication.kill(ports.index(port(session)))
        session.commit()
        return is_replica(session)

    assert not await replicated.work(read, read_only=True)


@few
async def test_run_reads_elsewhere_if_its_replica_dies(
    replicated: Flavour, replication: Replication
) -> None:
    ports = [port_of(url) for url in replication.replica_urls]
    attempts: list[bool] = []

    def read(session: Session) -> list[str]:
        attempts.append(is_replica(session))
        if len(attempts) == 1:
            replication.kill(ports.index(port(session)))
        return names(session)

    def run() -> Any:
        return replicated.db.run(read, read_only=True)

    async def arun() -> Any:
        return await replicated.db.run(
            lambda session: session.run_sync(read), read_only=True
        )

    found = await (arun() if replicated.is_async else to_thread.run_sync(run))

    assert (found, attempts) == ([], [True, False])


@few
async def test_a_unit_that_has_read_from_a_replica_goes_on_at_the_primary(
    replicated: Flavour, replication: Replication
) -> None:
    ports = [port_of(url) for url in replication.replica_urls]

    def read(session: Session) -> int:
        used = port(session)
        session.commit()
        return used

    async with replicated.block(read_only=True) as session:
        used = await replicated.do(session, read)
        replication.kill(ports.index(used))
        assert not await replicated.do(session, is_replica)
