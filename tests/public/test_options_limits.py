"""Time limits of statements and locks, streams, and a policy of one route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from starlette.responses import StreamingResponse

from support.asgi import call
from support.flavours import MARIADB, POSTGRESQL, Flavour, Observer, everywhere, only
from support.models import Item, add_item, names
from unitwork import (
    DBSessionMiddleware,
    UsageError,
    transactional,
)
from unitwork.fastapi import (
    exception_handlers,
)

pytestmark = pytest.mark.anyio


def kind(flavour: Flavour) -> str:
    return flavour.sync_engine.dialect.name


@only(*POSTGRESQL, *MARIADB)
async def test_a_statement_that_takes_too_long_is_a_504(flavour: Flavour) -> None:
    sleeping = {"postgresql": "SELECT pg_sleep(60)", "mysql": "SELECT SLEEP(60)"}
    sql = text(sleeping[kind(flavour)])

    def sleep(session: Session) -> None:
        session.execute(sql)

    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.get("/slow")(transactional(timeout=0.1)(flavour.endpoint(sleep)))
    app.get("/fast")(flavour.endpoint(names))

    slow, fast = await call(app, "GET", "/slow"), await call(app, "GET", "/fast")

    assert (slow.status, slow.json["title"]) == (504, "Gateway Timeout")
    assert (fast.status, fast.json) == (200, [])


@only(*POSTGRESQL, *MARIADB)
async def test_a_lock_that_is_not_to_be_had_is_a_503(flavour: Flavour) -> None:
    await flavour.work(lambda session: add_item(session) and None)

    def change(session: Session) -> None:
        session.execute(text("UPDATE item SET name = 'x' WHERE name = 'one'"))

    async def endpoint() -> None:
        await flavour.do(flavour.db.current, change)  # holds the row
        await flavour.work(change, lock_timeout=0.1)

    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(endpoint)

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete) == (503, True)


@only("sqlite3", "aiosqlite")
async def test_sqlite_waits_for_its_lock_no_longer_and_only_then(
    flavour: Flavour,
) -> None:
    def patience(session: Session) -> int:
        return int(session.execute(text("PRAGMA busy_timeout")).scalar_one())

    patient = {"connect_args": {"timeout": 30}}
    one = flavour.another(pool_size=1, max_overflow=0, **patient)
    before = await one.work(patience)
    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(DBSessionMiddleware, db=one.db)
    endpoint = one.endpoint(lambda session: add_item(session).id)
    app.post("/")(transactional(lock_timeout=0.05)(endpoint))

    async with flavour.block() as session:
        await flavour.do(session, add_item)
        async with asyncio.timeout(10):
            reply = await call(app, "POST", "/")
    after = await one.work(patience)
    await one.dispose()

    assert (reply.status, reply.complete) == (503, True)
    assert after == before


@only(*MARIADB)
async def test_mariadb_knows_the_limits_in_statements_of_each_kind(
    flavour: Flavour, observer: Observer
) -> None:
    limit = "@@max_statement_time"

    def define(session: Session) -> None:
        session.execute(text("DROP PROCEDURE IF EXISTS report"))
        session.execute(text(f"CREATE PROCEDURE report() SELECT {limit}"))

    def work(session: Session) -> list[Any]:
        with session.begin_nested():
            session.execute(insert(Item), [{"name": "one"}, {"name": "two"}])
        streaming = {"stream_results": True}
        stream = session.execute(
            text(f"SELECT {limit} FROM item"), execution_options=streaming
        )
        return [
            *stream.scalars(),
            session.execute(text("CALL report()")).scalar_one(),
            session.execute(
                text(f"WITH x AS (SELECT {limit} AS y) SELECT y FROM x")
            ).scalar_one(),
        ]

    await flavour.work(define)

    assert await flavour.work(work, timeout=5.0) == [5.0] * 4
    assert observer.names() == ["one", "two"]


@only(*POSTGRESQL)
async def test_a_limit_of_statements_does_not_reach_commit(
    flavour: Flavour, observer: Observer
) -> None:
    def slow_at_commit(session: Session) -> None:
        for sql in (
            "CREATE FUNCTION pg_temp.slow() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END'",
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON item "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
            "EXECUTE FUNCTION pg_temp.slow()",
        ):
            session.execute(text(sql))
        add_item(session)
        # As short from the start it could end one of the statements above.
        session.execute(text("SET LOCAL statement_timeout = '200ms'"))

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(transactional(timeout=30.0)(flavour.endpoint(slow_at_commit)))

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (200, ["one"])


@everywhere
async def test_infinity_lifts_a_limit(flavour: Flavour) -> None:
    limits = {"timeout": float("inf"), "lock_timeout": float("inf")}

    assert await flavour.work(names, **limits) == []


@only("asyncpg", "psycopg")
async def test_a_stream_may_keep_its_snapshot(flavour: Flavour) -> None:
    await flavour.work(lambda session: add_item(session) and None)
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.get("/")
    @transactional(isolation_level="REPEATABLE READ", read_only=True, stream=True)
    async def endpoint() -> StreamingResponse:
        session = flavour.db.current
        first = await flavour.do(session, names)

        async def body() -> AsyncIterator[str]:
            await flavour.work(lambda s: add_item(s, "two") and None, read_only=False)
            yield f"{first} {await flavour.do(session, names)}"

        return StreamingResponse(body())

    reply = await call(app, "GET", "/")

    assert reply.body == b"['one'] ['one']"
    assert await flavour.work(names) == ["one", "two"]


@only("asyncpg", "psycopg", "sqlite3")
async def test_a_stream_that_wrote_can_not_be_kept_open(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    endpoint = flavour.endpoint(lambda session: add_item(session).id)
    app.post("/")(transactional(stream=True)(endpoint))

    reply = await call(app, "POST", "/")

    assert isinstance(reply.error, UsageError)
    assert observer.names() == []


@only("sqlite3", "asyncpg")
async def test_a_route_may_have_its_own_policy(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        raise HTTPException(409)

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    policy = transactional(commit_when=lambda ending: ending.status != 503)
    app.post("/")(policy(flavour.endpoint(body)))

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (409, ["one"])


@only("psycopg", "asyncpg")
async def test_errors_of_the_database_come_through_as_they_are(
    flavour: Flavour,
) -> None:
    with pytest.raises(DBAPIError, match="division by zero"):
        await flavour.work(
            lambda session: session.execute(text("SELECT 1 / 0")), read_only=True
        )
