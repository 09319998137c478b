"""`unit.outside()` releases nothing that would be lost with the transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from support.flavours import (
    MARIADB,
    POSTGRESQL,
    Flavour,
    Observer,
    everywhere,
    only,
)
from support.models import Item, add_item, names
from support.releasing import checked_out, outside
from unitwork import UsageError

pytestmark = pytest.mark.anyio

postgresql = only(*POSTGRESQL)
READ_COMMITTED = {"isolation_level": "READ COMMITTED"}


async def refuses(flavour: Flavour, use: Callable[[Session], Any], match: str) -> None:
    """After *use* the transaction is kept, and goes on."""
    options = READ_COMMITTED if flavour.name in MARIADB else {}
    async with flavour.block(**options) as session:
        await flavour.do(session, use)
        with pytest.raises(UsageError, match=match):
            async with outside():
                pass
        assert checked_out(flavour) == 1
        await flavour.do(session, names)


def executing(sql: str) -> Callable[[Session], Any]:
    return lambda session: session.execute(text(sql))


@everywhere
async def test_after_a_write(flavour: Flavour, observer: Observer) -> None:
    await refuses(flavour, add_item, "it has written .*INSERT INTO item")
    assert observer.names() == ["one"]


@everywhere
async def test_after_a_write_as_text(flavour: Flavour, observer: Observer) -> None:
    sql = "INSERT INTO item (name) VALUES ('one')"
    await refuses(flavour, executing(sql), "it has written .*INSERT INTO item")
    assert observer.names() == ["one"]


@everywhere
async def test_after_a_bulk_insert(flavour: Flavour) -> None:
    rows = [{"name": "one"}, {"name": "two"}]
    await refuses(flavour, lambda s: s.execute(insert(Item), rows), "has written")


@only(*POSTGRESQL, *MARIADB)
async def test_after_locking_rows(flavour: Flavour) -> None:
    query = select(Item).with_for_update()
    await refuses(flavour, lambda s: s.execute(query), "locks .*FOR UPDATE")


@only(*POSTGRESQL)
@pytest.mark.parametrize(
    ("sql", "match"),
    [
        ("SELECT * FROM item FOR KEY SHARE", "locks .*KEY SHARE"),
        ("SELECT pg_advisory_xact_lock(7)", "locks .*advisory"),
        ("LOCK TABLE item IN ACCESS SHARE MODE", "LOCK TABLE"),
        ("SET LOCAL lock_timeout = '1s'", "SET LOCAL"),
        ("SELECT set_config('unitwork.tenant', '7', true)", "settings .*set_config"),
        ("SELECT lower(set_config('unitwork.tenant', '7', true))", "set_config"),
        ("SELECT CASE WHEN set_config('a.b', '7', true) = '' THEN 1 END", "set_config"),
        ("SELECT U&\"set\\005fconfig\"('a.b', '7', true)", "not known what ends"),
        ("DECLARE c CURSOR FOR SELECT 1", "DECLARE"),
        ("SELECT nextval('item_id_seq')", "written .*nextval"),
        ("SELECT lo_create(0)", "written .*lo_create"),
        ("DO $$ BEGIN PERFORM 1; END $$", "has written .*DO"),
        ("SET TRANSACTION READ ONLY", "SET TRANSACTION"),
        ("SELECT 1; SELECT 2", "several at once"),
    ],
)
async def test_after_what_ends_with_the_transaction(
    flavour: Flavour, sql: str, match: str
) -> None:
    if sql.count(";") == 1 and flavour.name == "asyncpg":
        pytest.skip("asyncpg prepares one statement at a time")
    await refuses(flavour, executing(sql), match)


@only("psycopg", "asyncpg")
@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("INSERT INTO item (name) VALUES ('hidden')", "has written .*hidden_effect"),
        ("SELECT set_config('unitwork.tenant', '7', true)", r"hidden_effect\(\)"),
        ("SELECT 1 FROM item FOR UPDATE", r"locks|written .*hidden_effect"),
    ],
)
async def test_after_what_a_function_does(
    flavour: Flavour, body: str, match: str
) -> None:
    create = f"""
        CREATE OR REPLACE FUNCTION hidden_effect() RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN PERFORM 1; {body.replace("SELECT", "PERFORM")}; END $$
    """
    await flavour.work(executing(create))
    await refuses(flavour, lambda s: s.execute(select(func.hidden_effect())), match)


@only("psycopg", "asyncpg")
async def test_after_a_view_that_makes_settings(flavour: Flavour) -> None:
    view = "CREATE OR REPLACE VIEW hidden AS SELECT set_config('a.b', '7', true)"
    await flavour.work(executing(view))
    await refuses(flavour, executing("SELECT * FROM hidden"), "view hidden")
    async with flavour.block() as session:
        await flavour.do(session, names)
        async with outside():  # of the view only its users are refused
            assert checked_out(flavour) == 0
    await flavour.work(executing("DROP VIEW hidden"))


@only("psycopg", "asyncpg")
async def test_after_a_stable_function_that_makes_settings(flavour: Flavour) -> None:
    create = """
        CREATE OR REPLACE FUNCTION stable_effect() RETURNS text LANGUAGE sql STABLE AS
        $$ SELECT set_config('a.b', '7', true) $$
    """
    await flavour.work(executing(create))
    await flavour.dispose()  # its statistics count as a write for a moment
    await refuses(flavour, executing("SELECT stable_effect()"), r"stable_effect\(\)")


@only("psycopg", "asyncpg")
@pytest.mark.parametrize("name", ["HiddenEffect", "hidden effect", "hidden$effect"])
async def test_after_a_function_with_a_quoted_name(flavour: Flavour, name: str) -> None:
    create = f"""
        CREATE OR REPLACE FUNCTION "{name}"() RETURNS void LANGUAGE sql AS
        $$ SELECT set_config('unitwork.tenant', '7', true) $$
    """
    await flavour.work(executing(create))
    await flavour.dispose()  # PostgreSQL takes it for written for another second
    await refuses(flavour, executing(f'SELECT "{name}"()'), "settings that end with it")


@postgresql
async def test_after_a_function_whose_name_can_not_be_looked_up(
    flavour: Flavour,
) -> None:
    await flavour.work(
        executing(
            'CREATE OR REPLACE FUNCTION "it\'s"() RETURNS int LANGUAGE sql AS'
            " $$ SELECT 1 $$"
        )
    )
    await refuses(flavour, executing('SELECT "it\'s"()'), "it's.* does")


@postgresql
async def test_with_an_open_cursor(flavour: Flavour) -> None:
    query = text("SELECT generate_series(1, 1000)")

    def use(session: Session) -> None:
        options = {"yield_per": 10}
        result = session.execute(query, execution_options=options)
        session.info["result"] = result
        result.fetchone()

    async with flavour.block() as session:
        await flavour.do(session, use)
        with pytest.raises(UsageError, match=r"cursor is open .*generate_series"):
            async with outside():
                pass
        await flavour.do(session, lambda s: s.info.pop("result").close())


@everywhere
async def test_inside_a_savepoint(flavour: Flavour) -> None:
    def use(session: Session) -> None:
        session.execute(select(Item))
        session.begin_nested()

    await refuses(flavour, use, "savepoint")


@postgresql
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_of_a_snapshot(flavour: Flavour, level: str) -> None:
    async with flavour.block(isolation_level=level) as session:
        await flavour.do(session, names)
        with pytest.raises(UsageError, match=f"isolation level is {level}"):
            async with outside():
                pass


@only("psycopg", "asyncpg")
async def test_of_a_snapshot_that_the_application_has_set(flavour: Flavour) -> None:
    options = {"isolation_level": "REPEATABLE READ"}
    await refuses(
        flavour,
        lambda s: s.connection(execution_options=options).execute(text("SELECT 1")),
        "isolation level is REPEATABLE READ",
    )


@only(*MARIADB)
async def test_of_the_snapshots_of_mariadb(flavour: Flavour) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        with pytest.raises(UsageError, match="isolation level is REPEATABLE READ"):
            async with outside():
                pass


@only("sqlite3", "aiosqlite")
async def test_of_a_level_that_sqlite_was_given(flavour: Flavour) -> None:
    async with flavour.block(isolation_level="SERIALIZABLE") as session:
        await flavour.do(session, names)
        with pytest.raises(UsageError, match="isolation level is SERIALIZABLE"):
            async with outside():
                pass


@only(*MARIADB)
async def test_functions_that_may_write_on_mariadb(flavour: Flavour) -> None:
    await refuses(flavour, executing("SELECT GET_LOCK('a', 0)"), "GET_LOCK")
    await refuses(flavour, lambda s: s.execute(select(func.uuid())), "uuid")


@only("psycopg", "asyncpg")
async def test_after_statements_through_the_driver(flavour: Flavour) -> None:
    def use(session: Session) -> None:
        session.execute(select(Item))
        cursor = session.connection().connection.cursor()
        cursor.execute("SELECT 1")
        cursor.close()

    await refuses(flavour, use, "driver")


@everywhere
async def test_with_a_swallowed_error(flavour: Flavour) -> None:
    async def swallow() -> None:
        async with flavour.block() as session:
            with pytest.raises(DBAPIError):
                await flavour.do(session, executing("SELECT nonsense"))
            with pytest.raises(UsageError, match="swallowed"):
                async with outside():
                    pass
            raise LookupError

    with pytest.raises(LookupError):
        await swallow()
