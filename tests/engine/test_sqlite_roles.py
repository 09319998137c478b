"""SQLite: the defaults of units, which no other user of the engine gets."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from support.engines import over
from support.flavours import Flavour, Observer, only
from support.models import Child, add_item, names
from unitwork import DatabaseSettings, UsageError

pytestmark = [pytest.mark.anyio, only("sqlite3", "aiosqlite")]

has_autocommit = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="sqlite3 got autocommit in Python 3.12"
)


@asynccontextmanager
async def connected(flavour: Flavour, **options: Any) -> AsyncIterator[Any]:
    """A connection of the engine, as other users have it; its `run()` is awaited."""
    engine = flavour.db.engine.execution_options(**options)
    if flavour.is_async:
        async with engine.connect() as connection:
            yield connection.run_sync
        return
    with engine.connect() as connection:

        async def run(work: Any) -> Any:
            return work(connection)

        yield run


def look(connection: Any) -> tuple[object, ...]:
    driver = connection.connection.driver_connection
    foreign_keys = connection.scalar(text("PRAGMA foreign_keys"))
    return foreign_keys, driver.isolation_level, driver.in_transaction


def add_orphan(session: Session) -> None:
    session.add(Child(parent_id=1))


PLAIN = (0, "", False)
INSERT = text("INSERT INTO item (name) VALUES ('two')")


@pytest.fixture
async def single(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database, with one connection, which serves units and others."""
    single = flavour.another(pool_size=1, max_overflow=0, pool_timeout=5)
    yield single
    await single.dispose()


async def test_others_get_what_sqlalchemy_gives_them(single: Flavour) -> None:
    for _ in range(2):
        async with connected(single) as run:
            assert await run(look) == PLAIN
        await single.work(add_item if _ == 0 else names)


async def test_others_write_in_autocommit_after_a_unit(
    single: Flavour, observer: Observer
) -> None:
    await single.work(add_item)
    async with connected(single, isolation_level="AUTOCOMMIT") as run:
        await run(lambda connection: connection.execute(INSERT))

    assert observer.names() == ["one", "two"]


async def test_others_can_roll_back_after_a_unit_in_autocommit(
    single: Flavour, observer: Observer
) -> None:
    engine = single.db.engine.execution_options(isolation_level="AUTOCOMMIT")
    committing = over(single, engine)
    await committing.work(names)
    async with connected(single) as run:
        await run(lambda connection: connection.execute(INSERT))

    assert observer.names() == []


async def test_units_get_theirs_after_others(single: Flavour) -> None:
    for _ in range(2):
        async with connected(single) as run:
            await run(look)
        with pytest.raises(IntegrityError, match="FOREIGN KEY"):
            await single.work(add_orphan)


async def test_one_unit_after_the_other_sets_nothing(flavour: Flavour) -> None:
    heard: list[str] = []

    def listen(dbapi_connection: Any, record: object) -> None:
        run = getattr(dbapi_connection, "run_async", lambda do: do(dbapi_connection))
        run(lambda connection: connection.set_trace_callback(heard.append))

    event.listen(flavour.sync_engine, "connect", listen)
    await flavour.work(names)
    heard.clear()
    for _ in range(3):
        await flavour.work(names)

    sent = [sql.split()[0] for sql in heard if sql != "VACUUM INTO NULL"]
    assert sent == ["BEGIN", "SELECT", "COMMIT"] * 3


async def test_a_reader_of_the_engine_does_not_wait_for_a_unit(
    flavour: Flavour,
) -> None:
    async with flavour.block() as session:
        await flavour.do(session, add_item)
        async with asyncio.timeout(4), connected(flavour) as run:
            count = await run(lambda c: c.scalar(text("SELECT count(*) FROM item")))

    assert count == 0


async def test_what_a_listener_has_set_is_what_others_get(flavour: Flavour) -> None:
    @event.listens_for(flavour.sync_engine, "connect")
    def connect(dbapi_connection: Any, record: object) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    await flavour.work(names)

    async with connected(flavour) as run:
        assert await run(look) == (1, "", False)


async def test_a_second_database_with_the_engine_has_units_too(
    flavour: Flavour,
) -> None:
    second = over(flavour, flavour.db.engine)

    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        await second.work(add_orphan)


# The modes of the driver


def made(flavour: Flavour, way: str, arguments: dict[str, Any]) -> Flavour:
    if way == "engine":
        make: Any = create_async_engine if flavour.is_async else create_engine
        return over(flavour, make(flavour.url, connect_args=arguments))
    settings = DatabaseSettings(sqlite_defaults=way == "url")
    return flavour.another(settings=settings, connect_args=arguments)


async def dispose(flavour: Flavour) -> None:
    disposed = flavour.db.engine.dispose()
    if disposed is not None:
        await disposed


@has_autocommit
@pytest.mark.parametrize("way", ["url", "plain url", "engine"])
async def test_the_transactions_of_autocommit_false_are_those_of_units(
    flavour: Flavour, way: str, observer: Observer
) -> None:
    database = made(flavour, way, {"autocommit": False})

    def fail(session: Session) -> None:
        add_item(session, "dropped")
        raise LookupError

    for name in ("one", "two"):
        await database.work(partial(add_item, name=name))
        with pytest.raises(LookupError):
            await database.work(fail)

    assert observer.names() == ["one", "two"]
    assert database.db.pool_status().idle == 1
    await dispose(database)


@has_autocommit
async def test_others_have_autocommit_false_as_they_have_set_it(
    flavour: Flavour, observer: Observer
) -> None:
    database = made(flavour, "url", {"autocommit": False})
    for name in ("one", "two"):
        await database.work(partial(add_item, name=name))
        async with connected(database) as run:
            await run(lambda c: c.execute(text("DELETE FROM item WHERE name = 'one'")))
        # closed without a commit

    assert observer.names() == ["one", "two"]
    await dispose(database)


@has_autocommit
async def test_autocommit_true_serves_units_by_url(
    flavour: Flavour, observer: Observer
) -> None:
    database = made(flavour, "url", {"autocommit": True})

    def fail(session: Session) -> None:
        add_item(session, "dropped")
        raise LookupError

    with pytest.raises(LookupError):
        await database.work(fail)
    await database.work(add_item)

    assert observer.names() == ["one"]
    await dispose(database)


@has_autocommit
async def test_autocommit_true_is_refused_where_units_can_not_change_it(
    flavour: Flavour, observer: Observer
) -> None:
    with pytest.raises(UsageError, match="autocommit=True"):
        made(flavour, "plain url", {"autocommit": True})
    database = made(flavour, "engine", {"autocommit": True})
    with pytest.raises(UsageError, match="autocommit=True"):
        await database.work(add_item)

    assert observer.names() == []
    await dispose(database)


async def test_a_driver_that_never_begins_is_refused(
    flavour: Flavour, observer: Observer
) -> None:
    database = made(flavour, "engine", {"isolation_level": None})

    with pytest.raises(UsageError, match="nothing sends BEGIN"):
        await database.work(add_item)

    assert observer.names() == []
    await dispose(database)


async def test_a_driver_that_leaves_begin_to_a_listener_will_do(
    flavour: Flavour, observer: Observer
) -> None:
    database = made(flavour, "engine", {"isolation_level": None})
    event.listen(
        database.sync_engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE")
    )

    await database.work(add_item)

    assert observer.names() == ["one"]
    await dispose(database)
