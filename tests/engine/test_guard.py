"""The guard of the pool: pings after idling, clean checkins, clean checkouts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest
from anyio.from_thread import start_blocking_portal
from sqlalchemy import text
from sqlalchemy.orm import Session

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
    Clock,
    connected,
    count_pings,
    driver_connection_of,
    write_behind_the_pool,
)
from support.models import add_item, names
from support.pool import eventually
from unitwork import DatabaseSettings, UnexpectedRollbackError

pytestmark = pytest.mark.anyio


@pytest.fixture
async def impatient(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database, with one connection that is asked after 10 seconds."""
    settings = DatabaseSettings(ping_after_idle=10.0)
    another = flavour.another(settings=settings, pool_size=1, max_overflow=0)
    yield another
    assert another.db.pool_status().checked_out == 0
    await another.dispose()


# Idle connections


@everywhere
async def test_asks_a_connection_that_was_idle_for_long(
    impatient: Flavour, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pings = count_pings(impatient, monkeypatch)
    await impatient.work(add_item)

    clock.now += 10.1
    assert await impatient.work(names) == ["one"]
    assert len(pings) == 1

    await impatient.work(names)
    assert len(pings) == 1


async def test_does_not_ask_a_connection_that_was_used_just_now(
    impatient: Flavour, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pings = count_pings(impatient, monkeypatch)

    for _ in range(5):
        await impatient.work(names)
        clock.now += 10.0

    assert pings == []


async def test_never_asks_if_it_is_told_so(
    flavour: Flavour, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = flavour.another(settings=DatabaseSettings(ping_after_idle=None))
    pings = count_pings(never, monkeypatch)

    for _ in range(2):
        await never.work(names)
        clock.now += 1e9
    await never.dispose()

    assert pings == []


@only(*SERVERS)
async def test_a_connection_that_died_while_it_was_idle_is_replaced_unnoticed(
    impatient: Flavour, observer: Observer, clock: Clock
) -> None:
    before = await impatient.work(backend)
    observer.terminate_all()

    clock.now += 10.1
    await impatient.work(add_item)

    assert observer.names() == ["one"]
    assert await impatient.work(backend) != before


@only(*SERVERS)
async def test_a_connection_that_died_just_now_is_noticed_and_replaced(
    impatient: Flavour, observer: Observer, clock: Clock
) -> None:
    await impatient.work(names)
    observer.terminate_all()

    with pytest.raises(Exception, match=r"(?i)terminat|closed|connection"):
        await impatient.work(add_item)

    await impatient.work(add_item)
    assert observer.names() == ["one"]


@only(*SERVERS)
async def test_a_ping_leaves_no_transaction_behind(
    impatient: Flavour, observer: Observer, clock: Clock
) -> None:
    await impatient.work(names)
    clock.now += 10.1

    async with connected(impatient.db.engine):
        assert observer.in_transaction() == []


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
        one.call(nothing)  # whatever it was told comes first
        alive = f"SELECT 1 FROM {LIVING[flavour.name in MARIADB]} = {before}"
        two.call(eventually, lambda: not observer._query(alive))
        two.call(flavour.dispose)


LIVING = ["pg_stat_activity WHERE pid", "information_schema.processlist WHERE id"]


async def nothing() -> None:
    pass
