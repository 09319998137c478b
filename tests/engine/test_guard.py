"""The guard of the pool: dropped connections, clean checkins, clean checkouts."""

from __future__ import annotations

from asyncio import gather
from collections.abc import Awaitable
from contextlib import suppress
from functools import partial

import pytest
from anyio.from_thread import start_blocking_portal
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from support.driver import call_driver
from support.flavours import (
    ASYNC,
    MARIADB,
    POSTGRESQL,
    SERVERS,
    Flavour,
    Observer,
    everywhere,
    only,
)
from support.guarding import (
    connected,
    count_pings,
    driver_connection_of,
    write_behind_the_pool,
)
from support.models import add_item, names
from support.pool import eventually
from unitwork import UnexpectedRollbackError, UnitworkError

pytestmark = pytest.mark.anyio


# Connections that the server has dropped


@only(*SERVERS)
async def test_a_connection_that_the_server_has_dropped_is_replaced_unnoticed(
    flavour: Flavour, observer: Observer
) -> None:
    before = await flavour.work(backend)
    observer.terminate_all()

    await flavour.work(add_item)

    assert observer.names() == ["one"]
    assert await flavour.work(backend) != before


@only(*SERVERS)
async def test_one_that_was_used_outside_of_units_alone_is_replaced_as_well(
    flavour: Flavour, observer: Observer
) -> None:
    await flavour.create_tables()  # as a lifespan does
    observer.terminate_all()

    await flavour.work(add_item)

    assert observer.names() == ["one"]


@only(*SERVERS)
async def test_requests_at_once_replace_all_connections_that_were_dropped(
    flavour: Flavour, observer: Observer
) -> None:
    async def write_all(*rows: str) -> None:
        await gather(*(flavour.work(partial(add_item, name=row)) for row in rows))

    await write_all("a", "b", "c", "d", "e")
    observer.terminate_all()
    await write_all("f", "g", "h", "i", "j")

    assert sorted(observer.names()) == list("abcdefghij")


@only(*SERVERS)
async def test_a_dropped_connection_costs_no_read_in_autocommit_mode(
    flavour: Flavour, observer: Observer
) -> None:
    def read() -> Awaitable[list[str]]:
        return flavour.work(names, isolation_level="AUTOCOMMIT")

    await read()
    observer.terminate_all()

    assert await read() == []


@only(*POSTGRESQL)
async def test_the_characteristics_are_those_of_the_new_connection(
    flavour: Flavour, observer: Observer
) -> None:
    def level() -> Awaitable[str]:
        return flavour.work(isolation_level, isolation_level="SERIALIZABLE")

    await level()
    observer.terminate_all()

    assert await level() == "serializable"
    assert await flavour.work(isolation_level) == "read committed"


@only(*SERVERS)
async def test_no_connection_is_pinged(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    pings = count_pings(flavour, monkeypatch)

    for name in "abc":
        await flavour.work(partial(add_item, name=name))

    assert pings == []


def isolation_level(session: Session) -> str:
    return str(session.scalar(text("SHOW transaction_isolation")))


def backend(session: Session) -> int:
    """Ask the server for its own number of the connection."""
    mysql = session.get_bind().dialect.name == "mysql"
    mine = "connection_id()" if mysql else "pg_backend_pid()"
    return int(session.execute(text(f"SELECT {mine}")).scalar_one())


# Transactions behind the pool's back


@everywhere
async def test_a_clean_connection_is_used_again(flavour: Flavour) -> None:
    first = await driver_connection_of(flavour.db.engine)

    await flavour.work(add_item)

    assert await driver_connection_of(flavour.db.engine) is first


@everywhere
async def test_a_connection_left_in_a_transaction_is_thrown_away_at_checkin(
    flavour: Flavour, observer: Observer
) -> None:
    careless = flavour.another(pool_size=1, max_overflow=0, pool_reset_on_return=None)
    async with connected(careless.db.engine) as left:
        await write_behind_the_pool(left)

    await eventually(lambda: observer.in_transaction() == [])
    assert await driver_connection_of(careless.db.engine) is not left
    await careless.work(partial(add_item, name="next"))
    assert observer.names() == ["next"]
    await careless.dispose()


@everywhere
async def test_a_connection_put_in_a_transaction_is_thrown_away_at_checkout(
    flavour: Flavour, observer: Observer
) -> None:
    put = await driver_connection_of(flavour.db.engine)
    await write_behind_the_pool(put)

    await flavour.work(partial(add_item, name="next"))

    assert observer.names() == ["next"]
    assert await driver_connection_of(flavour.db.engine) is not put


@everywhere
async def test_a_connection_closed_by_the_application_is_thrown_away_at_checkin(
    flavour: Flavour,
) -> None:
    narrow = flavour.another(pool_size=1, max_overflow=0)

    def body(session: Session) -> None:
        session.execute(text("SELECT 1"))
        call_driver(session, "close")

    with suppress(UnitworkError, SQLAlchemyError):  # as each driver has it
        await narrow.work(body)

    await narrow.create_tables()  # a plain user of the engine
    await narrow.dispose()


@everywhere
async def test_an_invalidated_connection_may_be_checked_in(flavour: Flavour) -> None:
    with pytest.raises(UnexpectedRollbackError, match="was called"):
        await flavour.work(use_and_invalidate)

    await flavour.work(add_item)

    assert await flavour.work(names) == ["one"]


def use_and_invalidate(session: Session) -> None:
    names(session)
    session.invalidate()


# Event loops


@only(*ASYNC, "asyncmy")
def test_a_connection_of_another_event_loop_is_replaced(flavour: Flavour) -> None:
    with start_blocking_portal() as one, start_blocking_portal() as two:
        first = one.call(driver_connection_of, flavour.db.engine)
        again = one.call(driver_connection_of, flavour.db.engine)
        second = two.call(driver_connection_of, flavour.db.engine)
        two.call(flavour.dispose)

    assert first is again is not second


@only(*POSTGRESQL[1:], "asyncmy")
def test_the_connection_that_was_replaced_is_closed(
    flavour: Flavour, observer: Observer
) -> None:
    with start_blocking_portal() as one, start_blocking_portal() as two:
        before = one.call(flavour.work, backend)
        two.call(flavour.work, backend)
        one.call(nothing)  # what it was sent before comes first
        alive = f"SELECT 1 FROM {LIVING[flavour.name in MARIADB]} = {before}"
        two.call(eventually, lambda: not observer._query(alive))
        two.call(flavour.dispose)


LIVING = ["pg_stat_activity WHERE pid", "information_schema.processlist WHERE id"]


async def nothing() -> None:
    pass


# SQLAlchemy itself leaves one of psycopg's `AsyncConnection` to the garbage collector.
@only("sqlite3", "aiosqlite", "psycopg", "asyncpg", *MARIADB)
async def test_a_connection_that_the_application_detaches_is_closed_in_peace(
    flavour: Flavour, observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    def detach(session: Session) -> None:
        add_item(session)
        session.connection().detach()

    await flavour.work(detach)

    assert observer.names() == ["one"]
    assert caplog.records == []
