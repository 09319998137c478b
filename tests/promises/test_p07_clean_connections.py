"""P7: a connection returns to the pool clean, or is thrown away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyio import to_thread
from fastapi import FastAPI, HTTPException
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from support.asgi import call
from support.flavours import MARIADB, SERVERS, Flavour, Observer, everywhere, only
from support.holding import running
from support.models import add_item, names
from support.pool import check_pool_is_whole, impatient
from support.proxy import Proxy
from unitwork import DBSessionMiddleware

pytestmark = pytest.mark.anyio


def serve(flavour: Flavour) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/write")(flavour.endpoint(lambda session: add_item(session, "next").id))
    return app


@pytest.fixture
def app(flavour: Flavour) -> FastAPI:
    return serve(flavour)


async def write_again(app: FastAPI, observer: Observer) -> list[str]:
    """Commit another row, and with it whatever a connection has still open."""
    reply = await call(app, "POST", "/write")
    assert (reply.status, reply.error) == (200, None)
    return observer.names()


# The server, the network


@only(*SERVERS)
async def test_a_connection_that_was_killed_is_not_used_again(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    def endpoint(session: Session) -> None:
        add_item(session)
        observer.terminate_all()
        raise HTTPException(409)  # the rollback will find the line dead

    app.post("/killed")(flavour.endpoint(endpoint))

    reply = await call(app, "POST", "/killed")

    assert (reply.status, reply.error, reply.complete) == (409, None, True)
    await check_pool_is_whole(flavour)
    assert await write_again(app, observer) == ["next"]


@pytest.fixture
async def proxy(flavour: Flavour) -> AsyncIterator[Proxy]:
    async with Proxy(flavour.url) as proxy:
        yield proxy


@pytest.fixture
async def behind(flavour: Flavour, proxy: Proxy) -> AsyncIterator[Flavour]:
    """The database as seen through the proxy, with little patience."""
    async with impatient(flavour, url=proxy.url) as behind:
        yield behind


@only(*SERVERS)
async def test_a_rollback_that_is_never_answered_does_not_keep_the_client_waiting(
    behind: Flavour, proxy: Proxy, observer: Observer
) -> None:
    app = serve(behind)

    @app.post("/swallowed")
    async def endpoint() -> None:
        await behind.do(behind.db.current, lambda session: add_item(session).id)
        proxy.swallow()
        raise HTTPException(409)

    async with asyncio.timeout(10):
        reply = await call(app, "POST", "/swallowed")
    proxy.forward()

    assert (reply.status, reply.error, reply.complete) == (409, None, True)
    assert await write_again(app, observer) == ["next"]


@only(*SERVERS)
async def test_a_block_whose_rollback_is_never_answered_ends(
    behind: Flavour, proxy: Proxy
) -> None:
    def block(session: Session) -> None:
        add_item(session)
        proxy.swallow()
        raise LookupError

    async with asyncio.timeout(10):
        with pytest.raises(LookupError):
            await behind.work(block)
    proxy.forward()


@only(
    "psycopg", "asyncpg", *MARIADB
)  # psycopg's async one asks the server for ten seconds
async def test_a_statement_that_is_never_answered_can_be_cancelled(
    behind: Flavour, proxy: Proxy, observer: Observer
) -> None:
    app = serve(behind)
    swallowed = asyncio.Event()

    @app.post("/swallowed")
    async def endpoint() -> None:
        session = behind.db.current
        await behind.do(session, lambda session: add_item(session).id)
        proxy.swallow()
        swallowed.set()
        await behind.do(session, names)

    async with running(call(app, "POST", "/swallowed")) as request, asyncio.timeout(10):
        await swallowed.wait()
        request.cancel()
        await asyncio.wait((request,))
    proxy.forward()

    assert request.cancelled()
    assert await write_again(app, observer) == ["next"]


@only(*SERVERS)
@pytest.mark.parametrize("fault", ["cut", "reset"])
async def test_a_line_that_breaks_is_thrown_away(
    behind: Flavour, proxy: Proxy, observer: Observer, fault: str
) -> None:
    app = serve(behind)

    @app.post("/broken")
    async def endpoint() -> None:
        await behind.do(behind.db.current, lambda session: add_item(session).id)
        getattr(proxy, fault)()
        raise HTTPException(409)

    reply = await call(app, "POST", "/broken")

    assert (reply.status, reply.error, reply.complete) == (409, None, True)
    assert await write_again(app, observer) == ["next"]


# What others do to connections


@everywhere
async def test_a_commit_that_was_never_sent_leaks_nothing_into_the_next_request(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    app.post("/refused")(flavour.endpoint(lambda session: add_item(session).id))

    def refuse(connection: Any) -> None:
        raise LookupError

    event.listen(flavour.sync_engine, "commit", refuse)
    reply = await call(app, "POST", "/refused")
    event.remove(flavour.sync_engine, "commit", refuse)

    assert (reply.status, type(reply.error)) == (500, LookupError)
    assert await write_again(app, observer) == ["next"]


@everywhere
async def test_a_pooled_connection_inside_a_transaction_is_not_handed_out(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    await write_behind_the_pool(flavour)

    assert flavour.db.pool_status().checked_out == 0
    assert await write_again(app, observer) == ["next"]
    await check_pool_is_whole(flavour)


WRITE = "INSERT INTO item (name) VALUES ('behind')"


async def write_behind_the_pool(flavour: Flavour) -> None:
    """Open a transaction on a connection that is back in the pool."""
    if flavour.is_async:
        async with flavour.db.engine.connect() as connection:
            raw = await connection.get_raw_connection()
            execute = execute_of(raw.driver_connection)
        await execute("BEGIN")
        await execute(WRITE)
    else:
        await to_thread.run_sync(_write_behind_the_pool, flavour)


def _write_behind_the_pool(flavour: Flavour) -> None:
    with flavour.db.engine.connect() as connection:
        execute = execute_of(connection.connection.driver_connection)
    execute("BEGIN")
    execute(WRITE)


def execute_of(driver: Any) -> Any:
    return driver.execute if hasattr(driver, "execute") else driver.query


@everywhere
async def test_a_connection_returned_inside_a_transaction_is_thrown_away(
    flavour: Flavour, observer: Observer
) -> None:
    careless = flavour.another(pool_reset_on_return=None)

    await write_and_return(careless)
    await careless.work(lambda session: add_item(session, "next").id)

    assert observer.names() == ["next"]
    await careless.dispose()


async def write_and_return(flavour: Flavour) -> None:
    """Give a connection back to the pool without a word about its transaction."""
    if flavour.is_async:
        await greenlet_spawn(_write_and_return, flavour.sync_engine)
    else:
        await to_thread.run_sync(_write_and_return, flavour.sync_engine)


def _write_and_return(engine: Engine) -> None:
    connection = engine.raw_connection()
    cursor = connection.cursor()
    cursor.execute("BEGIN")
    cursor.execute(WRITE)
    cursor.close()
    connection.close()


# An interruption of the process


class Interrupted(BaseException):
    """As `KeyboardInterrupt`, which would stop the event loop of the test as well."""


def interrupt(*arguments: object) -> None:
    raise Interrupted


@only("sqlite3")
async def test_an_interrupted_statement_keeps_no_lock(
    flavour: Flavour, observer: Observer
) -> None:
    """The error that is kept has the cursor, which has more rows."""

    def body(session: Session) -> None:
        add_item(session)
        event.listen(flavour.sync_engine, "after_cursor_execute", interrupt, once=True)
        session.execute(text("SELECT 1 UNION ALL SELECT 2"))

    with pytest.raises(Interrupted) as kept:
        await flavour.work(body)
    await flavour.work(lambda session: add_item(session, "next").id)

    assert observer.names() == ["next"]
    del kept
