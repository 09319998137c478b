"""Units that only read do so from a replica, which stays the same for the unit."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import NullPool, text
from sqlalchemy.orm import Session

from servers.postgresql_replication import Replication
from support.flavours import POSTGRESQL, Flavour, kind_of
from support.models import Item, add_item, names
from support.proxy import Proxy, RoundTrips
from support.recording import recording
from support.replicated import (
    is_replica,
    port,
    port_of,
    replicated_flavour,
    with_driver,
)
from unitwork import ReadOnlyError, UsageError
from unitwork.events import WaitEnded

pytestmark = pytest.mark.anyio


async def test_a_unit_that_only_reads_does_so_from_a_replica(
    replicated: Flavour,
) -> None:
    assert await replicated.work(is_replica, read_only=True)


async def test_every_other_unit_uses_the_primary(replicated: Flavour) -> None:
    assert not await replicated.work(is_replica)
    assert not await replicated.work(is_replica, isolation_level="REPEATABLE READ")


async def test_a_block_reads_from_the_primary_if_it_says_so(
    replicated: Flavour,
) -> None:
    assert not await replicated.work(is_replica, read_only=True, replica=False)


async def test_serializable_reads_come_from_the_primary(replicated: Flavour) -> None:
    level = {"isolation_level": "SERIALIZABLE"}

    assert not await replicated.work(is_replica, read_only=True, **level)


async def test_a_write_in_a_unit_on_a_replica_is_a_read_only_error(
    replicated: Flavour,
) -> None:
    def write(session: Session) -> None:
        assert is_replica(session)
        add_item(session)

    with pytest.raises(ReadOnlyError):
        await replicated.work(write, read_only=True)


async def test_a_lock_for_a_write_is_a_read_only_error_as_well(
    replicated: Flavour,
) -> None:
    def lock(session: Session) -> None:
        session.query(Item).with_for_update().all()

    with pytest.raises(ReadOnlyError):
        await replicated.work(lock, read_only=True)


async def test_all_statements_of_a_unit_read_from_the_same_server(
    replicated: Flavour,
) -> None:
    def read(session: Session) -> set[int]:
        return {port(session) for _ in range(10)}

    assert len(await replicated.work(read, read_only=True)) == 1


async def test_the_next_transaction_of_a_unit_reads_from_the_same_server(
    replicated: Flavour,
) -> None:
    def read(session: Session) -> set[int]:
        ports = set()
        for _ in range(10):
            ports.add(port(session))
            session.commit()
        return ports

    assert len(await replicated.work(read, read_only=True)) == 1


async def test_units_at_the_same_time_are_spread_over_the_replicas(
    replicated: Flavour,
) -> None:
    async with (
        replicated.block(read_only=True) as one,
        replicated.block(read_only=True) as two,
    ):
        ports = {await replicated.do(one, port), await replicated.do(two, port)}

    assert len(ports) == 2


async def test_a_busy_replica_is_left_to_those_that_use_it(
    replicated: Flavour, replication: Replication
) -> None:
    async with replicated.block(read_only=True) as busy:
        used = await replicated.do(busy, port)
        others = {await replicated.work(port, read_only=True) for _ in range(8)}

    assert others == {*map(port_of, replication.replica_urls)} - {used}


async def test_more_units_than_connections_wait_for_the_pools_of_the_replicas(
    replicated: Flavour,
) -> None:
    reads = [replicated.work(is_replica, read_only=True) for _ in range(40)]

    assert all(await asyncio.gather(*reads))
    assert replicated.db.pool_status().waiting == 0


async def test_a_read_on_a_replica_takes_no_connection_of_the_primary(
    replicated: Flavour,
) -> None:
    def read(session: Session) -> int:
        assert is_replica(session)
        return int(replicated.db.pool_status().checked_out)

    assert await replicated.work(read, read_only=True) == 0


@pytest.mark.parametrize("name", POSTGRESQL)
async def test_works_without_pools(name: str, replication: Replication) -> None:
    flavour = replicated_flavour(name, replication, poolclass=NullPool)

    assert await flavour.work(is_replica, read_only=True)
    assert not await flavour.work(is_replica)
    await flavour.dispose()


@pytest.mark.parametrize("name", POSTGRESQL)
async def test_a_callable_may_give_the_replicas(
    name: str, replication: Replication
) -> None:
    replica = replicated_flavour(name, replication)
    replica.db = kind_of(name)(with_driver(replication.replica_urls[0], name))
    engines = [replica.db.engine]
    late = replicated_flavour(name, replication, replicas=lambda: engines)

    assert await late.work(is_replica, read_only=True)
    await late.dispose()
    await replica.dispose()


@pytest.mark.parametrize("name", POSTGRESQL)
async def test_a_read_takes_as_many_round_trips_as_on_the_primary(
    name: str, replication: Replication
) -> None:
    async with Proxy(replication.replica_urls[0]) as proxy:
        urls = [with_driver(proxy.url, name)]
        flavour = replicated_flavour(name, replication, replicas=urls)
        await flavour.work(names, read_only=True)
        trips = next(iter(proxy.lines.values())).trap = RoundTrips()
        await flavour.work(names, read_only=True)
        assert trips.count == 3  # BEGIN, SELECT, COMMIT
        await flavour.dispose()


async def test_a_block_inside_may_read_from_a_replica(replicated: Flavour) -> None:
    async with replicated.block() as outer:
        assert not await replicated.do(outer, is_replica)
        assert await replicated.work(is_replica, read_only=True)


async def test_options_that_come_too_late_are_refused(replicated: Flavour) -> None:
    async with replicated.block(read_only=True) as session:
        await replicated.do(session, names)
        with pytest.raises(UsageError, match="replica=False comes too late"):
            async with replicated.block(nested="join", replica=False):
                pass


async def test_settings_of_the_session_reach_the_replica(replicated: Flavour) -> None:
    def timeout(session: Session) -> object:
        assert is_replica(session)
        return session.scalar(text("SHOW statement_timeout"))

    assert await replicated.work(timeout, read_only=True, timeout=1.5) == "1500ms"


async def test_status_lists_the_replicas(replicated: Flavour) -> None:
    status = replicated.db.replica_status()

    assert [each.usable for each in status] == [True, True]


async def test_a_unit_that_reads_from_a_replica_leaves_its_wait_to_no_other(
    replication: Replication,
) -> None:
    flavour = replicated_flavour("asyncpg", replication)
    with recording(flavour.db) as recorder:
        async with flavour.block(read_only=True) as session:
            assert await flavour.do(session, is_replica)
            async with flavour.db.engine.connect():
                pass

    await flavour.dispose()
    of_unit, of_other = recorder.of(WaitEnded)
    assert of_unit.unit is not None
    assert of_unit.pool.startswith("default, replica ")
    assert (of_other.unit, of_other.pool) == (None, "default")
