"""Writes that no text shows: retries, streams and AUTOCOMMIT notice them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from anyio import to_thread
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from support.asgi import call
from support.flavours import MARIADB, POSTGRESQL, Flavour, Observer, everywhere, only
from support.guarding import execute
from support.models import add_item, names
from support.tried import Tried, check_once
from unitwork import DBSessionMiddleware, ReadOnlyError, TransactionOptions, UsageError

pytestmark = pytest.mark.anyio

SQLITE = ["sqlite3", "aiosqlite"]
INSERT = "INSERT INTO item (name) VALUES ('hidden')"
WRITER = """
CREATE OR REPLACE FUNCTION write_hidden() RETURNS int LANGUAGE sql AS
$$ INSERT INTO item (name) VALUES ('hidden') RETURNING id $$
"""
MYSQL_WRITER = """
CREATE OR REPLACE FUNCTION write_hidden() RETURNS int MODIFIES SQL DATA
BEGIN INSERT INTO item (name) VALUES ('hidden'); RETURN 1; END
"""
HIDDEN = [
    text("SELECT write_hidden()"),
    select(func.write_hidden()),
    text("WITH x AS (SELECT write_hidden() AS id) SELECT /* all */ * FROM x"),
]


@pytest.fixture
def tried(flavour: Flavour) -> Tried:
    return Tried(flavour)


@pytest.fixture
async def writer(flavour: Flavour) -> AsyncIterator[None]:
    """A function of the database that writes."""
    create = MYSQL_WRITER if flavour.name in MARIADB else WRITER
    await flavour.work(lambda session: session.execute(text(create)) and None)
    yield
    drop = text("DROP FUNCTION IF EXISTS write_hidden")
    await flavour.work(lambda session: session.execute(drop) and None)


async def write_through_the_driver(flavour: Flavour, session: Any) -> None:
    """Write on the driver's own connection, inside the transaction of *session*."""
    if flavour.is_async:
        await session.scalar(select(1))
        raw = await (await session.connection()).get_raw_connection()
        done: Any = execute(raw.driver_connection, INSERT)
        if inspect.isawaitable(done):
            await done
    else:
        await to_thread.run_sync(_write_through_the_driver, session)


def _write_through_the_driver(session: Session) -> None:
    session.scalar(select(1))
    execute(session.connection().connection.driver_connection, INSERT)


def executing(statement: Any) -> Callable[[Session], None]:
    def body(session: Session) -> None:
        session.execute(statement).all()

    return body


# Retries


@only(*POSTGRESQL, *MARIADB)
@pytest.mark.usefixtures("writer")
@pytest.mark.parametrize("statement", HIDDEN)
async def test_a_block_that_calls_a_writing_function_is_not_run_twice(
    flavour: Flavour, tried: Tried, observer: Observer, statement: Any
) -> None:
    async def block() -> None:
        await flavour.work(executing(statement))

    check_once(tried, await tried.request(block))
    assert observer.names() == ["hidden"]


@only("psycopg", "psycopg-async")
@pytest.mark.parametrize(
    "sql",
    [
        f"SET LOCAL work_mem = '8MB'; {INSERT}",
        f"SELECT ';'; /* now */ {INSERT}",
        INSERT.replace(" INTO", " /* c */ INTO"),
        "WITH x AS (SELECT 1) /* */ " + INSERT.replace(" INTO", " -- c\n INTO"),
    ],
)
async def test_a_block_of_several_statements_or_comments_is_not_run_twice(
    flavour: Flavour, tried: Tried, observer: Observer, sql: str
) -> None:
    async def block() -> None:
        await flavour.work(lambda session: session.execute(text(sql)) and None)

    check_once(tried, await tried.request(block))
    assert observer.names() == ["hidden"]


@everywhere
async def test_a_block_that_writes_through_the_driver_is_not_run_twice(
    flavour: Flavour, tried: Tried, observer: Observer
) -> None:
    async def block() -> None:
        async with flavour.block() as session:
            await write_through_the_driver(flavour, session)

    check_once(tried, await tried.request(block))
    assert observer.names() == ["hidden"]


@only("asyncpg", "psycopg-async", "asyncmy")
async def test_a_block_that_only_writes_through_the_driver_is_not_run_twice(
    flavour: Flavour, tried: Tried, observer: Observer
) -> None:
    async def block() -> None:
        async with flavour.db.transaction() as session:
            raw = await (await session.connection()).get_raw_connection()
            await execute(raw.driver_connection, INSERT)

    check_once(tried, await tried.request(block))
    assert observer.names() == ["hidden"]


@only(*POSTGRESQL)
@pytest.mark.parametrize(
    "statement",
    ["SELECT lo_create(0)", "SELECT nextval('item_id_seq')", "CREATE SCHEMA hidden"],
)
async def test_a_block_that_writes_no_row_is_not_run_twice(
    flavour: Flavour, tried: Tried, statement: str
) -> None:
    async def block() -> None:
        hidden = f"DO $$ BEGIN EXECUTE $x${statement}$x$; END $$"
        async with flavour.block() as session:
            await flavour.do(session, lambda s: s.execute(text(hidden)) and None)

    check_once(tried, await tried.request(block))
    await flavour.work(
        lambda s: s.execute(text("DROP SCHEMA IF EXISTS hidden")) and None
    )


@only(*SQLITE, *POSTGRESQL)
async def test_a_block_that_reads_by_text_is_run_again(
    flavour: Flavour, tried: Tried, observer: Observer
) -> None:
    async def read() -> None:
        await flavour.work(
            executing(text("SELECT name, count(*) FROM item GROUP BY 1"))
        )

    assert (await tried.request(read, tried.write)).status == 200
    assert (tried.attempts, observer.names()) == ([1, 2], ["attempt 2"])


# Streams


@only(*POSTGRESQL, *MARIADB)
@pytest.mark.usefixtures("writer")
@pytest.mark.parametrize("statement", HIDDEN)
async def test_a_kept_transaction_that_has_written_secretly_is_no_success(
    flavour: Flavour, observer: Observer, statement: Any
) -> None:
    reply = await stream(flavour, executing(statement))

    assert isinstance(reply.error, UsageError)
    assert observer.names() == []


@everywhere
async def test_a_kept_transaction_that_has_written_by_the_driver_is_no_success(
    flavour: Flavour, observer: Observer
) -> None:
    async def write() -> None:
        await write_through_the_driver(flavour, flavour.db.current)

    reply = await stream(flavour, names, write)

    assert isinstance(reply.error, UsageError)
    assert observer.names() == []


@only(*SQLITE, *POSTGRESQL)
async def test_a_kept_transaction_that_has_read_by_text_streams(
    flavour: Flavour,
) -> None:
    reply = await stream(flavour, executing(text("SELECT 1")))

    assert (reply.status, reply.body) == (200, b"streamed")


@only(*POSTGRESQL)
@pytest.mark.parametrize("ddl", ["CREATE TABLE new ()", "CREATE TYPE new AS ()"])
async def test_a_get_streams_on_a_connection_that_has_created_something(
    flavour: Flavour, ddl: str
) -> None:
    await flavour.work(lambda session: session.execute(text(ddl)) and None)
    reply = await stream(flavour, executing(text("SELECT 1")), method="GET")
    await flavour.work(lambda s: s.execute(text(f"DROP {ddl.split()[1]} new")) and None)

    assert (reply.status, reply.body) == (200, b"streamed")


async def stream(
    flavour: Flavour,
    body: Callable[[Session], Any],
    then: Callable[[], Any] = lambda: asyncio.sleep(0),
    method: str = "POST",
) -> Any:
    """Serve a response whose transaction is kept open, after *body* and *then*."""

    async def chunks() -> AsyncIterator[str]:
        yield "streamed"

    async def endpoint() -> StreamingResponse:
        await flavour.do(await flavour.db.session(), body)
        await then()
        return StreamingResponse(chunks())

    app = FastAPI()
    options = TransactionOptions(stream=True)
    app.add_middleware(DBSessionMiddleware, db=flavour.db, options=options)
    app.add_api_route("/", endpoint, methods=[method])
    return await call(app, method, "/")


# AUTOCOMMIT


@only(*POSTGRESQL, *MARIADB)
@pytest.mark.usefixtures("writer")
@pytest.mark.parametrize("statement", HIDDEN)
async def test_autocommit_lets_no_function_write(
    flavour: Flavour, observer: Observer, statement: Any
) -> None:
    with pytest.raises(ReadOnlyError, match="AUTOCOMMIT"):
        await flavour.work(executing(statement), isolation_level="AUTOCOMMIT")

    assert observer.names() == []
    await flavour.work(add_item)
    assert observer.names() == ["one"]


@only("psycopg", "psycopg-async")
@pytest.mark.parametrize(
    "sql",
    [
        f"SET LOCAL work_mem = '8MB'; {INSERT}",
        f"SELECT 1; COMMIT; {INSERT}",
        "SELECT 1; COMMIT; SELECT write_hidden()",
        "SET TRANSACTION READ WRITE; SELECT write_hidden()",
    ],
)
@pytest.mark.usefixtures("writer")
async def test_autocommit_lets_no_second_statement_write(
    flavour: Flavour, observer: Observer, sql: str
) -> None:
    with pytest.raises(Exception, match=r"AUTOCOMMIT|read-write"):
        await flavour.work(
            lambda session: session.execute(text(sql)) and None,
            isolation_level="AUTOCOMMIT",
        )

    assert observer.names() == []


@everywhere
async def test_autocommit_reads_by_text_and_by_functions(flavour: Flavour) -> None:
    def body(session: Session) -> list[Any]:
        session.execute(text("SELECT name FROM item")).all()
        return [
            session.scalar(text("SELECT 40 + 2")),
            session.scalar(select(func.nullif(1, 2))),
            session.scalar(select(func.abs(-3)).select_from(select(1).subquery())),
        ]

    assert await flavour.work(body, isolation_level="AUTOCOMMIT") == [42, 1, 3]


@only(*SQLITE)
async def test_autocommit_is_query_only_in_sqlite(
    flavour: Flavour, observer: Observer
) -> None:
    async def body() -> None:
        async with flavour.block(isolation_level="AUTOCOMMIT") as session:
            await write_through_the_driver(flavour, session)

    with pytest.raises(Exception, match="readonly"):
        await body()

    assert observer.names() == []
    await flavour.work(add_item)


@only(*POSTGRESQL)
async def test_autocommit_goes_on_after_a_text_that_fails(flavour: Flavour) -> None:
    def body(session: Session) -> int | None:
        with pytest.raises(Exception, match="zero"):
            session.execute(text("SELECT 1 / 0"))
        return session.scalar(text("SELECT 42"))

    assert await flavour.work(body, isolation_level="AUTOCOMMIT") == 42


@only(*MARIADB)
async def test_options_of_a_block_that_reads_do_not_count_as_writes(
    flavour: Flavour, tried: Tried, observer: Observer
) -> None:
    async def read() -> None:
        await flavour.work(names, isolation_level="SERIALIZABLE", timeout=5.0)
        await flavour.work(names)

    assert (await tried.request(read, tried.write)).status == 200
    assert (tried.attempts, observer.names()) == ([1, 2], ["attempt 2"])


@only(*SQLITE)
async def test_a_block_that_writes_by_a_pragma_is_not_run_twice(
    flavour: Flavour, tried: Tried
) -> None:
    async def block() -> None:
        pragma = text("PRAGMA main.user_version = 7")
        await flavour.work(lambda session: session.execute(pragma) and None)

    check_once(tried, await tried.request(block))
