"""Behind PgBouncer, which hands a server connection to another client at each COMMIT.

Here it has two of them for all clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.driver import send
from support.flavours import POSTGRESQL, Flavour, Observer, only
from support.holding import holding
from support.models import add_item, add_orphan
from support.pgbouncer import CLIENTS, SERVERS, on_every_server, pid
from support.pool import eventually
from unitwork import (
    DBSessionMiddleware,
    transactional,
)

pytestmark = pytest.mark.anyio

OPTIONS = {  # what is asked for, and how PostgreSQL calls that
    "isolation_level": ("SERIALIZABLE", "transaction_isolation", "serializable"),
    "read_only": (True, "transaction_read_only", "on"),
    "deferrable": (True, "transaction_deferrable", "on"),
    "timeout": (7.0, "statement_timeout", "7s"),
    "lock_timeout": (3.0, "lock_timeout", "3s"),
}

each_driver = only(*POSTGRESQL)


def serve(flavour: Flavour, body: Callable[[Session, str], Any]) -> FastAPI:
    """Run *body* at each POST to /items/{name}."""
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/items/{name}", status_code=201)
    async def endpoint(name: str) -> None:
        await flavour.do(flavour.db.current, lambda session: body(session, name))

    return app


async def post(app: FastAPI, *names: str) -> list[Reply]:
    return await asyncio.gather(*(call(app, "POST", f"/items/{x}") for x in names))


def waiting(pgbouncer: str, flavour: Flavour) -> int:
    """How many clients PgBouncer lets wait for a server connection."""
    console = make_url(pgbouncer).set(database="pgbouncer").render_as_string(False)
    with psycopg.connect(console, autocommit=True) as admin:
        pools = admin.execute("SHOW POOLS").fetchall()
    database = make_url(flavour.url).database
    return sum(pool[3] for pool in pools if pool[0] == database)


def setting(session: Session, name: str) -> str:
    value = session.scalars(text("SELECT current_setting(:name)"), {"name": name}).one()
    return str(value)


# Many clients


@each_driver
async def test_twenty_units_share_two_server_connections(
    pooled: Flavour, pgbouncer: str, observer: Observer
) -> None:
    pids: set[int] = set()

    def body(session: Session, name: str) -> None:
        hold.execute(session)
        pids.add(pid(session))
        add_item(session, name)
        if name.startswith("refused"):
            raise HTTPException(409)

    app = serve(pooled, body)
    wanted = [f"item {n}" for n in range(CLIENTS // 2)]
    unwanted = [f"refused {n}" for n in range(CLIENTS // 2)]
    with holding(pooled) as hold:
        requests = asyncio.create_task(post(app, *wanted, *unwanted))
        await hold.reached(SERVERS)
        others = CLIENTS - SERVERS
        await eventually(lambda: waiting(pgbouncer, pooled) == others)
        hold.release()
        replies = await requests

    assert [reply.status for reply in replies] == [201] * 10 + [409] * 10
    assert sorted(observer.names()) == wanted
    assert len(pids) == SERVERS


@each_driver
async def test_what_was_acknowledged_is_there_for_the_next_client(
    pooled: Flavour,
) -> None:
    def body(session: Session, name: str) -> None:
        add_item(session, name)

    async def client(number: int) -> None:
        for n in range(10):
            name = f"{number}-{n}"
            (reply,) = await post(app, name)
            assert reply.status == 201
            assert await pooled.work(lambda s, name=name: is_there(s, name))

    app = serve(pooled, body)
    await asyncio.gather(*(client(number) for number in range(8)))


def is_there(session: Session, name: str) -> bool:
    return name in session.scalars(text("SELECT name FROM item")).all()


# Nothing of one for the next


def fails(session: Session, name: str) -> None:
    add_item(session, name)
    raise HTTPException(409)


def fails_at_commit(session: Session, name: str) -> None:
    add_item(session, name)
    add_orphan(session)


def swallows(session: Session, name: str) -> None:
    add_item(session, name)
    with suppress(DBAPIError):
        session.execute(text("SELECT 1/0"))


def leaves_a_savepoint(session: Session, name: str) -> None:
    session.begin_nested()
    add_item(session, name)
    raise HTTPException(409)


def commits_in_the_middle(session: Session, name: str) -> None:
    session.commit()
    add_item(session, name)
    raise HTTPException(409)


@each_driver
@pytest.mark.parametrize(
    "body",
    [fails, fails_at_commit, swallows, leaves_a_savepoint, commits_in_the_middle],
)
async def test_a_unit_that_fails_leaves_nothing_to_those_that_come_after_it(
    pooled: Flavour, observer: Observer, body: Callable[[Session, str], None]
) -> None:
    replies = await post(serve(pooled, body), *map(str, range(CLIENTS)))

    assert not any(reply.status == 201 for reply in replies)
    assert observer.names() == []
    await on_every_server(pooled, lambda session: add_item(session, str(pid(session))))
    assert len(observer.names()) == SERVERS


@each_driver
@pytest.mark.parametrize(
    ("sql", "status", "stored"),
    [("ROLLBACK; BEGIN", 500, 0), ("SELECT 1; SELECT 2", 201, CLIENTS)],
)
async def test_only_the_transaction_that_was_begun_is_committed(
    pooled: Flavour, observer: Observer, sql: str, status: int, stored: int
) -> None:
    def body(session: Session, name: str) -> None:
        add_item(session, name)
        send(session, sql)

    replies = await post(serve(pooled, body), *map(str, range(CLIENTS)))

    assert {reply.status for reply in replies} == {status}
    assert len(observer.names()) == stored


@each_driver
async def test_what_is_set_for_a_transaction_is_not_there_for_the_next_client(
    pooled: Flavour,
) -> None:
    def body(session: Session, name: str) -> None:
        session.execute(text("SELECT set_config('unitwork.tenant', 'theirs', true)"))
        session.execute(text("SELECT pg_advisory_xact_lock_shared(11)"))
        add_item(session, name)

    await post(serve(pooled, body), *map(str, range(CLIENTS)))

    tenant = "SELECT COALESCE(current_setting('unitwork.tenant', true), '')"
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 11"
    for sql, nothing in ((tenant, ""), (locks, 0)):
        found = await on_every_server(pooled, lambda s, q=sql: s.scalar(text(q)))
        assert found == [nothing] * SERVERS


@each_driver
async def test_a_request_that_is_cancelled_takes_nothing_from_the_others(
    pooled: Flavour, observer: Observer
) -> None:
    def body(session: Session, name: str) -> None:
        add_item(session, name)
        if name == "cancelled":
            hold.execute(session)

    app = serve(pooled, body)
    with holding(pooled) as hold:
        cancelled = asyncio.create_task(post(app, "cancelled"))
        await hold.reached()
        cancelled.cancel()
        await asyncio.wait((cancelled,))
        replies = await post(app, *map(str, range(CLIENTS - 1)))

    assert {reply.status for reply in replies} == {201}
    assert "cancelled" not in observer.names()
    await eventually(lambda: observer.in_transaction() == [])


# Options of one unit


def extended(option: str) -> dict[str, Any]:
    """The keywords with which the *option* has a meaning."""
    keywords = {option: OPTIONS[option][0]}
    if option == "deferrable":
        keywords |= {"isolation_level": "SERIALIZABLE", "read_only": True}
    return keywords


@each_driver
@pytest.mark.parametrize("option", OPTIONS)
async def test_an_option_is_in_force_in_its_unit_and_nowhere_else(
    pooled: Flavour, option: str
) -> None:
    _, name, in_force = OPTIONS[option]

    def look(session: Session) -> str:
        return setting(session, name)

    (default, *_) = await on_every_server(pooled, look)
    assert default != in_force
    async with pooled.block(**extended(option)) as session:
        for _ in range(2):
            assert await pooled.do(session, look) == in_force
            async with pooled.block(nested="own") as other:  # on the other connection
                assert await pooled.do(other, look) == default
            await pooled.do(session, lambda s: s.commit())
            assert await on_every_server(pooled, look) == [default] * SERVERS
        assert await pooled.do(session, look) == in_force
    assert await on_every_server(pooled, look) == [default] * SERVERS


@each_driver
@pytest.mark.parametrize("option", OPTIONS)
async def test_an_option_of_a_route_is_in_force_in_its_requests_only(
    pooled: Flavour, option: str
) -> None:
    _, name, in_force = OPTIONS[option]
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=pooled.db)

    async def look() -> str:
        return str(await pooled.do(pooled.db.current, lambda s: setting(s, name)))

    app.get("/default")(look)
    app.get("/asks")(transactional(**extended(option))(partial(look)))

    paths = ["/asks", "/default"] * (CLIENTS // 2)
    replies = await asyncio.gather(*(call(app, "GET", path) for path in paths))

    (default,) = {reply.json for reply in replies[1::2]}
    assert {reply.json for reply in replies[::2]} == {in_force}
    assert default != in_force
