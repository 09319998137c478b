"""The guard of the pool: pings after idling, clean checkins, clean checkouts."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from anyio import to_thread
from anyio.from_thread import start_blocking_portal
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

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
from support.models import Item, add_item, names
from support.pool import eventually, use_every_connection
from unitwork import DatabaseSettings, UnexpectedRollbackError

pytestmark = pytest.mark.anyio


class Clock:
    """What the guard takes for the time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("unitwork._guard.time", clock)
    return clock


@pytest.fixture
async def impatient(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database, with one connection that is asked after 10 seconds."""
    settings = DatabaseSettings(ping_after_idle=10.0)
    another = flavour.another(settings=settings, pool_size=1, max_overflow=0)
    yield another
    assert another.db.pool_status().checked_out == 0
    await another.dispose()


def count_pings(flavour: Flavour, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    dialect = flavour.sync_engine.dialect
    ping, pings = dialect.do_ping, []

    def counted(dbapi_connection: Any) -> bool:
        pings.append(dbapi_connection)
        return ping(dbapi_connection)

    monkeypatch.setattr(dialect, "do_ping", counted)
    return pings


@asynccontextmanager
async def connected(engine: Any) -> AsyncIterator[Any]:
    """Check a connection of *engine* out, and give the driver's own."""
    if isinstance(engine, AsyncEngine):
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            yield raw.driver_connection
    else:
        connection = await to_thread.run_sync(engine.connect)
        try:
            yield connection.connection.driver_connection
        finally:
            await to_thread.run_sync(connection.close)


async def driver_connection_of(engine: Any) -> Any:
    async with connected(engine) as driver_connection:
        return driver_connection


async def write_behind_the_pool(driver_connection: Any) -> None:
    """Begin a transaction, and write in it, unnoticed by SQLAlchemy."""
    for sql in ("BEGIN", "INSERT INTO item (name) VALUES ('ghost')"):
        done = await to_thread.run_sync(execute, driver_connection, sql)
        if inspect.isawaitable(done):
            await done


def execute(driver_connection: Any, sql: str) -> Any:
    """A coroutine, or what it gives."""
    if hasattr(driver_connection, "execute"):
        return driver_connection.execute(sql)
    return driver_connection.query(sql)


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


# Engines of others


@pytest.fixture
async def engine(flavour: Flavour) -> AsyncIterator[Any]:
    open_engine = create_async_engine if flavour.is_async else create_engine
    engine: Any = open_engine(flavour.url, pool_size=1, max_overflow=0)
    yield engine
    await over(flavour, engine).dispose()


def over(flavour: Flavour, source: Any, **options: Any) -> Flavour:
    return Flavour(flavour.name, flavour.url, type(flavour.db)(source, **options))


async def test_listens_once_to_an_engine_that_is_shared(
    flavour: Flavour, engine: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DatabaseSettings(ping_after_idle=10.0)
    one = over(flavour, engine, settings=settings)
    two = over(flavour, engine, name="two", settings=settings)
    late = over(flavour, lambda: engine, settings=settings)
    pings = count_pings(one, monkeypatch)

    for shared in (one, two, late):
        await shared.work(names)
        clock.now += 10.1

    assert len(pings) == 2


async def make_and_use(flavour: Flavour, engine: Any) -> Flavour:
    """Let *engine* have a connection in its pool before anybody guards it."""
    if flavour.is_async:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    else:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    return over(flavour, engine)


async def test_takes_over_connections_that_were_there_before(
    flavour: Flavour, engine: Any, observer: Observer
) -> None:
    taken = await make_and_use(flavour, engine)
    assert taken.db.pool_status().idle == 1

    await taken.work(add_item)

    assert observer.names() == ["one"]


@everywhere
async def test_looks_into_connections_that_were_there_before(
    flavour: Flavour, engine: Any, observer: Observer
) -> None:
    taken = await make_and_use(flavour, engine)
    put = await driver_connection_of(taken.db.engine)
    await write_behind_the_pool(put)

    await taken.work(partial(add_item, name="next"))

    assert observer.names() == ["next"]


@only(*POSTGRESQL)
async def test_a_swallowed_error_is_no_success_on_such_a_connection_either(
    flavour: Flavour, engine: Any
) -> None:
    taken = await make_and_use(flavour, engine)

    def body(session: Session) -> None:
        add_item(session)
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT 1/0"))

    with pytest.raises(UnexpectedRollbackError):
        await taken.work(body)


async def test_every_engine_is_guarded_that_a_callable_gives(
    flavour: Flavour, engine: Any, observer: Observer
) -> None:
    answers = [flavour.db.engine]
    late = over(flavour, lambda: answers[-1])
    await late.work(names)
    answers.append(engine)
    put = await driver_connection_of(late.db.engine)
    await write_behind_the_pool(put)

    await late.work(partial(add_item, name="next"))

    assert observer.names() == ["next"]


async def test_the_engine_is_guarded_that_a_sessionmaker_is_given_later(
    flavour: Flavour, engine: Any, observer: Observer
) -> None:
    make: Any = async_sessionmaker if flavour.is_async else sessionmaker
    maker = make(flavour.db.engine)
    made = over(flavour, maker)
    await made.work(names)
    maker.configure(bind=engine)
    put = await driver_connection_of(made.db.engine)
    await write_behind_the_pool(put)

    await made.work(partial(add_item, name="next"))

    assert observer.names() == ["next"]


async def test_all_engines_of_a_sessionmaker_are_guarded(
    flavour: Flavour, engine: Any, observer: Observer
) -> None:
    make: Any = async_sessionmaker if flavour.is_async else sessionmaker
    binds = {Item: engine}
    made = over(flavour, make(flavour.db.engine, binds=binds))
    put = await driver_connection_of(engine)
    await write_behind_the_pool(put)

    await made.work(partial(add_item, name="next"))

    assert observer.names() == ["next"]


@only("sqlite3", "aiosqlite")
async def test_what_cost_one_unit_its_work_is_forgotten_at_checkin(
    flavour: Flavour,
) -> None:
    """The bare engine knows no units, and gets the same connection."""
    single = flavour.another(pool_size=1, max_overflow=0)

    def lose(session: Session) -> None:
        add_item(session)
        session.execute(text("INSERT OR ROLLBACK INTO item (name) VALUES ('one')"))

    with pytest.raises(IntegrityError):
        await single.work(lose)

    assert await use_every_connection(single) == 1
    await single.dispose()
