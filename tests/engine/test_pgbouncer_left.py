"""Behind PgBouncer: what would be left to other clients, and what drivers prepare."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import create_engine, literal, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from support.flavours import FLAVOURS, POSTGRESQL, Flavour, only
from support.pgbouncer import BEHIND, SERVERS, on_every_server, pid
from support.proxy import Proxy, RoundTrips
from unitwork import UsageError, classify

pytestmark = pytest.mark.anyio

each_driver = only(*POSTGRESQL)


@each_driver
@pytest.mark.parametrize(
    "sql",
    [
        "SET search_path TO tenant",
        "SELECT set_config('unitwork.tenant', 'theirs', false)",
        "SELECT pg_advisory_lock(12)",
        "CREATE TEMPORARY TABLE theirs (id int)",
        "LISTEN theirs",
        "PREPARE theirs AS SELECT 1",
        "DECLARE theirs CURSOR WITH HOLD FOR SELECT 1",
    ],
)
async def test_session_level_state_is_refused(pooled: Flavour, sql: str) -> None:
    with pytest.raises(UsageError, match="the pooler would hand"):
        await pooled.work(lambda session: session.execute(text(sql)))

    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 12"
    found = await on_every_server(pooled, lambda s: s.scalar(text(locks)))
    assert found == [0] * SERVERS


@each_driver
@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TEMPORARY TABLE ours (id int) ON COMMIT DROP",
        "create temp table if not exists pg_temp.ours on commit\n drop as select 1",
        "CREATE TEMP TABLE ours (name text DEFAULT 'ours', \"on\" int) ON COMMIT DROP",
        "DO $$ BEGIN CREATE TEMP TABLE ours (id int) ON COMMIT DROP; END $$",
        "DO $$ BEGIN EXECUTE 'CREATE TEMP TABLE ours (id int) ON COMMIT DROP'; END $$",
    ],
)
async def test_a_temporary_table_of_one_transaction_is_not_refused(
    pooled: Flavour, sql: str
) -> None:
    create = text(sql)

    await pooled.work(lambda session: session.execute(create))

    await on_every_server(pooled, lambda session: session.execute(create))


WITH_TABLES_THAT_END = [
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; {}",
    "{}; SELECT pg_temp.f()",
    "{}; CREATE TEMP TABLE theirs (id int)",
    "CREATE TEMP TABLE theirs (id int); {}",
    "CREATE TEMP SEQUENCE theirs; {}",
    "{} AS SELECT pg_temp.f()",
    "{}; SELECT 1 AS id INTO TEMP theirs",
    "{}; SELECT pg_advisory_lock(12)",
    "CREATE TEMP TABLE theirs AS SELECT 'on commit drop' AS name",
    "CREATE TEMP TABLE theirs (id int) -- ON COMMIT DROP",
    'CREATE TEMP TABLE theirs ("on commit drop" int)',
    "CREATE TEMP TABLE theirs AS SELECT $q$on commit drop$q$ AS name",
    "DO $$ BEGIN EXECUTE 'CREATE TEMP TABLE a (id int)';"
    " PERFORM 'on commit drop'; END $$",
]


@only("psycopg")  # refused by its text, whatever the driver
@pytest.mark.parametrize("sql", WITH_TABLES_THAT_END)
async def test_what_lasts_is_refused_beside_a_table_that_ends_with_its_transaction(
    pooled: Flavour, sql: str
) -> None:
    statement = text(sql.format("CREATE TEMP TABLE ours (id int) ON COMMIT DROP"))

    with pytest.raises(UsageError, match="the pooler would hand"):
        await pooled.work(lambda session: session.execute(statement))


@each_driver
async def test_statements_that_are_executed_often_are_not_prepared(
    pooled: Flavour,
) -> None:
    async def client() -> None:
        for n in range(12):
            assert await pooled.work(lambda s, n=n: s.scalar(select(literal(n)))) == n

    await asyncio.gather(*(client() for _ in range(8)))


@each_driver
async def test_no_statement_stays_prepared_on_a_server_connection(
    pooled: Flavour,
) -> None:
    def read(session: Session) -> None:
        session.execute(text("SELECT 1"))
        session.execute(text("SELECT ARRAY[int4range(1, 2)], :n"), {"n": "two"})

    await asyncio.gather(*(pooled.work(read) for _ in range(8)))

    count = text("SELECT count(*) FROM pg_prepared_statements WHERE statement !~ :us")
    us = {"us": "pg_prepared_statements"}
    found = await on_every_server(pooled, lambda s: s.scalar(count, us))
    assert found == [0] * SERVERS


@only("asyncpg")
async def test_a_statement_takes_one_round_trip_to_prepare_and_one_to_execute(
    flavour: Flavour,
) -> None:
    async with Proxy(flavour.url) as proxy:
        slow = replace(flavour, url=proxy.url).another(settings=BEHIND)
        await slow.work(pid)
        trips = next(iter(proxy.lines.values())).trap = RoundTrips()
        await slow.work(lambda session: (pid(session), pid(session)))
        assert trips.count == 6  # BEGIN, two statements, COMMIT
        await slow.dispose()


@only("psycopg", "psycopg-async")
async def test_a_unit_in_autocommit_mode_reads(pooled: Flavour) -> None:
    read = text("SELECT count(*) FROM item WHERE name <> :name")

    async def client() -> list[int]:
        return [
            await pooled.work(
                lambda s: s.scalar(read, {"name": ""}), isolation_level="AUTOCOMMIT"
            )
            for _ in range(12)
        ]

    found = await asyncio.gather(*(client() for _ in range(8)))
    assert found == [[0] * 12] * 8


@only("asyncpg")
async def test_autocommit_mode_is_refused_where_the_driver_prepares_each_statement(
    pooled: Flavour,
) -> None:
    with pytest.raises(UsageError, match="asyncpg prepares each statement"):
        await pooled.work(pid, isolation_level="AUTOCOMMIT")


@each_driver
async def test_an_engine_of_ones_own_is_set_too(
    pooled: Flavour, pgbouncer: str
) -> None:
    there = make_url(pgbouncer).set(
        drivername=FLAVOURS[pooled.name], database=make_url(pooled.url).database
    )
    create = create_async_engine if pooled.is_async else create_engine
    engine = create(there)
    own = Flavour(pooled.name, pooled.url, type(pooled.db)(engine, settings=BEHIND))

    async def client() -> None:
        for _ in range(8):
            await own.work(lambda session: session.scalar(select(literal(1))))

    await asyncio.gather(*(client() for _ in range(4)))
    await own.dispose()


@only("sqlite3", "aiosqlite")
async def test_the_setting_is_for_postgresql(flavour: Flavour) -> None:
    with pytest.raises(UsageError, match="for PostgreSQL only"):
        flavour.another(settings=BEHIND)


@only("asyncpg")
async def test_a_statement_that_a_pooler_has_lost_leads_to_the_setting(
    pooled: Flavour, pgbouncer: str
) -> None:
    there = make_url(pgbouncer).set(
        drivername="postgresql+asyncpg", database=make_url(pooled.url).database
    )
    plain = replace(pooled, url=there.render_as_string(False)).another()

    async def client() -> None:
        for _ in range(20):
            await on_every_server(plain, lambda s: s.scalar(select(literal(1))))

    with pytest.raises(DBAPIError) as caught:
        await client()

    assert "transaction_pooler=True" in classify(caught.value).reason
    await plain.dispose()
