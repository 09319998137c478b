"""Session-level state that a unit leaves on its connection is not in the next one."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from support.flavours import MARIADB, POSTGRESQL, SERVERS, Flavour, everywhere, only
from support.guarding import driver_connection_of
from support.models import Item, add_item, names
from support.proxy import Proxy, RoundTrips
from unitwork import SessionStateWarning

pytestmark = pytest.mark.anyio

LEAVING = {
    "postgresql": [
        "SET search_path TO pg_catalog",
        "DO $$ BEGIN EXECUTE 'SET app.tenant = 1'; END $$",
        "/* a tenant */ SET -- comes here\n app.tenant = 'secret'",
        "SELECT set_config('app.tenant', 'secret', false)",
        "DO $$ BEGIN PERFORM set_config('app.tenant', 'secret', false); END $$",
        "SET ROLE postgres",
        "SELECT pg_advisory_lock(42)",
        "SELECT pg_try_advisory_lock_shared(4, 2)",
        "CREATE TEMPORARY TABLE left_behind (id int)",
        "SELECT 1 AS id INTO TEMP left_behind",
        "CREATE TABLE pg_temp.left_behind (id int)",
        "LISTEN news",
        "PREPARE plan AS SELECT 1",
        "DECLARE kept CURSOR WITH HOLD FOR SELECT 1",
    ],
    "mysql": [
        "SET SESSION sort_buffer_size = 65536",
        "SET @@sql_mode = ''",
        "SET @tenant = 'secret'",
        "SELECT @tenant := 'secret'",
        "/*!40101 SET NAMES latin1 */",
        "EXECUTE IMMEDIATE 'SET @tenant = 1'",
        "BEGIN NOT ATOMIC SET @tenant = 'secret'; END",
        "SELECT get_lock('secret', 1)",
        "CREATE TEMPORARY TABLE left_behind (id int)",
        "PREPARE plan FROM 'SELECT 1'",
    ],
    "sqlite": [
        "PRAGMA foreign_keys = OFF",
        "PRAGMA main.cache_size(77)",
        "/* for a moment */ pragma query_only = 0",
        "CREATE TEMP TABLE left_behind (id)",
        "CREATE TABLE temp.left_behind (id)",
    ],
}
HARMLESS = {
    "postgresql": [
        "SET LOCAL work_mem = '8MB'",
        "SELECT set_config('app.tenant', 'a,)', true)",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SELECT pg_advisory_xact_lock(42)",
        "CREATE TEMPORARY TABLE left_behind (id int) ON COMMIT DROP",
        "UPDATE item SET name = 'set x' WHERE false",
        "SELECT pg_advisory_lock(42), pg_advisory_unlock(42)",
    ],
    "mysql": ["SELECT get_lock('a', 1), release_lock('a')", "SELECT @@sql_mode"],
    "sqlite": ["PRAGMA foreign_keys", "PRAGMA table_info(item)"],
}


@pytest.fixture
async def one(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database, with one connection."""
    another = flavour.another(pool_size=1, max_overflow=0)
    yield another
    await another.dispose()


def family(flavour: Flavour) -> str:
    return flavour.sync_engine.dialect.name


def running(*statements: Any) -> Any:
    def body(session: Session) -> None:
        for statement in statements:
            given = text(statement) if isinstance(statement, str) else statement
            session.execute(given)

    return body


@everywhere
@pytest.mark.parametrize("number", range(15))
async def test_what_outlives_its_unit_is_dropped_with_its_connection(
    one: Flavour, number: int
) -> None:
    statement = dict(enumerate(LEAVING[family(one)])).get(
        number, LEAVING[family(one)][0]
    )
    before = await driver_connection_of(one.db.engine)

    with pytest.warns(SessionStateWarning, match="outlives the transaction") as caught:
        await one.work(running(statement))

    assert await driver_connection_of(one.db.engine) is not before
    assert "secret" not in str(caught[0].message)


@only("psycopg", "psycopg-async")  # the only ones to take several at once
async def test_the_second_statement_of_a_text_is_seen(one: Flavour) -> None:
    before = await driver_connection_of(one.db.engine)

    with pytest.warns(SessionStateWarning, match="set work_mem"):
        await one.work(running("set local work_mem = '8MB'; set work_mem = '9MB'"))

    assert await driver_connection_of(one.db.engine) is not before


@everywhere
@pytest.mark.parametrize("number", range(7))
async def test_what_ends_with_its_unit_costs_no_connection(
    one: Flavour, number: int
) -> None:
    statement = dict(enumerate(HARMLESS[family(one)])).get(number, "SELECT 1")
    before = await driver_connection_of(one.db.engine)

    await one.work(running(statement))

    assert await driver_connection_of(one.db.engine) is before


@only(*POSTGRESQL)
@pytest.mark.parametrize(
    ("construct", "is_kept"),
    [
        (select(func.pg_advisory_lock(1)), False),
        (select(func.set_config("app.tenant", "x", False)), False),
        (select(func.set_config("app.tenant", "x", True)), True),
        (text("SELECT set_config('a.b', :b, :c)").bindparams(b="x", c=True), True),
        (text("SELECT set_config('a.b', :b, :c)").bindparams(b="x", c=False), False),
        (select(func.pg_advisory_lock(1), func.pg_advisory_unlock(1)), True),
    ],
)
@pytest.mark.filterwarnings("ignore::unitwork.SessionStateWarning")
async def test_constructs_are_looked_at_with_their_parameters(
    one: Flavour, construct: Any, is_kept: bool
) -> None:
    before = await driver_connection_of(one.db.engine)

    await one.work(running(construct))

    assert (await driver_connection_of(one.db.engine) is before) == is_kept


@only(*SERVERS)
@pytest.mark.filterwarnings("ignore::unitwork.SessionStateWarning")
async def test_a_lock_that_a_failed_statement_has_taken_is_dropped(
    one: Flavour,
) -> None:
    lock = "get_lock('a', 1)" if one.name in MARIADB else "pg_advisory_lock(1)"
    before = await driver_connection_of(one.db.engine)

    with pytest.raises(LookupError):
        await one.work(failing(f"SELECT {lock}"))

    assert await driver_connection_of(one.db.engine) is not before


def failing(statement: str) -> Any:
    def body(session: Session) -> None:
        session.execute(text(statement))
        raise LookupError

    return body


@everywhere
async def test_it_is_warned_of_once_where_it_happens(one: Flavour) -> None:
    statement = LEAVING[family(one)][0]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            await one.work(running(statement))

    assert [warning.category for warning in caught] == [SessionStateWarning]
    assert statement.replace("SESSION ", "").split(" ")[1] in str(caught[0].message)


@everywhere
async def test_plain_users_of_the_engine_may_do_what_they_like(one: Flavour) -> None:
    statement = LEAVING[family(one)][0]
    before = await driver_connection_of(one.db.engine)

    if one.is_async:
        async with one.db.engine.connect() as connection:
            await connection.execute(text(statement))
    else:
        with one.db.engine.connect() as connection:
            connection.execute(text(statement))

    assert await driver_connection_of(one.db.engine) is before


@only("asyncpg", "psycopg")
async def test_what_a_listener_sets_on_each_connection_stays(one: Flavour) -> None:
    @event.listens_for(one.sync_engine, "connect")
    def connect(dbapi_connection: Any, record: object) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute("SET application_name TO 'ours'")
        cursor.close()
        dbapi_connection.commit()

    with pytest.warns(SessionStateWarning):
        await one.work(running("SET application_name TO 'theirs'"))

    show = text("SHOW application_name")
    assert await one.work(lambda session: session.scalar(show)) == "ours"


@only("sqlite3", "aiosqlite")
async def test_a_connection_that_all_share_is_kept(flavour: Flavour) -> None:
    shared = replace(flavour, url=FLAVOURLESS[flavour.name])
    static = shared.another(poolclass=StaticPool)
    await static.create_tables()
    await static.work(add_item)

    with pytest.warns(SessionStateWarning):
        await static.work(running("PRAGMA foreign_keys = OFF"))

    assert await static.work(names) == ["one"]
    await static.dispose()


FLAVOURLESS = {
    "sqlite3": "sqlite:///file::memory:?uri=true",
    "aiosqlite": "sqlite+aiosqlite:///file::memory:?uri=true",
}


@only(*POSTGRESQL)
async def test_units_that_leave_nothing_pay_no_round_trip(flavour: Flavour) -> None:
    async with Proxy(flavour.url) as proxy:
        there = replace(flavour, url=proxy.url).another(pool_size=1, max_overflow=0)
        trips = RoundTrips()
        proxy.for_newcomers.append(trips)
        for _ in range(8):
            await there.work(lambda session: session.get(Item, 1))
        before = trips.count
        await there.work(lambda session: session.get(Item, 1))
        made = trips.count - before
        await there.dispose()

    assert made == 3


@only(*POSTGRESQL)
async def test_a_connection_that_died_with_its_lock_is_dropped(one: Flavour) -> None:
    def body(session: Session) -> None:
        session.execute(text("SELECT pg_advisory_lock(1)"))
        with pytest.raises(Exception, match=r"(?i)terminat|closed|connection"):
            session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(Exception, match=r"(?i)lost|closed|connection"):
        await one.work(body)

    assert await one.work(names) == []
