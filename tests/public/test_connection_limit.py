"""How many connections the server allows, compared with its own answers."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

from support.flavours import MARIADB, POSTGRESQL, Flavour, only
from unitwork import ConnectionLimit, PoolStatus, UsageError, connection_limit

pytestmark = pytest.mark.anyio


def limited(session: Session) -> ConnectionLimit:
    return connection_limit(session)


@only(*POSTGRESQL)
async def test_takes_off_what_is_reserved_for_superusers(flavour: Flavour) -> None:
    def shown(session: Session) -> tuple[int, int]:
        maximum = session.scalar(text("SHOW max_connections"))
        reserved = session.scalar(text("SHOW superuser_reserved_connections"))
        return int(maximum), int(reserved)

    maximum, reserved = await flavour.work(shown)

    assert reserved > 0
    assert (await flavour.work(limited)).allowed == maximum - reserved


@only("psycopg")
async def test_takes_the_limit_of_the_database_if_it_is_less(flavour: Flavour) -> None:
    name = make_url(flavour.url).database
    limits = f'ALTER DATABASE "{name}" CONNECTION LIMIT'
    await flavour.work(lambda session: session.execute(text(f"{limits} 7")))
    try:
        assert (await flavour.work(limited)).allowed == 7
    finally:
        await flavour.work(lambda session: session.execute(text(f"{limits} -1")))


@only(*MARIADB)
async def test_takes_the_limit_of_a_mariadb(flavour: Flavour) -> None:
    query = text("SELECT @@max_connections")
    maximum = await flavour.work(lambda session: session.scalar(query))

    assert (await flavour.work(limited)).allowed == maximum


@only("psycopg", "pymysql")
async def test_counts_the_connections_of_all_clients(flavour: Flavour) -> None:
    other = flavour.another(pool_size=30)
    with ExitStack() as held:
        for _ in range(30):
            held.enter_context(other.sync_engine.connect())
        limit = await flavour.work(limited)
    await other.dispose()

    assert 30 < limit.in_use <= limit.allowed


@only("sqlite3", "aiosqlite")
async def test_refuses_sqlite(flavour: Flavour) -> None:
    with pytest.raises(UsageError, match="sqlite has no limit"):
        await flavour.work(limited)


def test_says_for_how_many_processes_it_is_enough() -> None:
    pool = PoolStatus(size=15, checked_out=0, idle=0, waiting=0)

    assert ConnectionLimit(allowed=97, in_use=0).processes(pool) == 6


def test_refuses_a_pool_without_a_limit() -> None:
    pool = PoolStatus(size=None, checked_out=0, idle=0, waiting=0)

    with pytest.raises(UsageError, match="any number of connections"):
        ConnectionLimit(allowed=97, in_use=0).processes(pool)
