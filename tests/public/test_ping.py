"""`ping()`: whether a database answers, with a time limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from anyio import to_thread
from sqlalchemy import Connection, StaticPool, event, make_url

from support.asgi import call
from support.endpoints import serve_fastapi
from support.flavours import Flavour, Observer, only
from support.models import add_item, names
from support.servers import listen
from unitwork import DatabaseUnavailableError, UsageError
from unitwork._driver.driver_connection import in_transaction
from unitwork.fastapi import exception_handlers

pytestmark = pytest.mark.anyio

one_of_each = only("sqlite3", "aiosqlite")
on_server = only("psycopg", "psycopg-async", "asyncpg")


async def ping(flavour: Flavour, **options: Any) -> None:
    limited = {"timeout": 30.0, **options}
    if flavour.is_async:
        await flavour.db.ping(**limited)
    else:
        await to_thread.run_sync(lambda: flavour.db.ping(**limited))


def elsewhere(flavour: Flavour, port: int) -> Flavour:
    """The database as if it was at another *port*, with a password."""
    url = make_url(flavour.url).set(host="127.0.0.1", port=port, password="s3cret")
    other = Flavour(flavour.name, url.render_as_string(False), flavour.db)
    return other.another(name="away")


async def test_a_database_that_answers(flavour: Flavour, observer: Observer) -> None:
    await ping(flavour)

    assert flavour.db.pool_status()[1:] == (0, 1, 0)
    assert observer.in_transaction() == []


async def test_it_makes_one_round_trip_without_a_transaction(flavour: Flavour) -> None:
    await ping(flavour)
    sent: list[tuple[str, bool]] = []

    def note(connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        driver = connection.connection.driver_connection
        sent.append((statement, in_transaction(driver)))

    event.listen(flavour.sync_engine, "after_cursor_execute", note)
    await ping(flavour)

    assert sent == [("SELECT 1", False)]


async def test_a_unit_beside_it_keeps_its_work(flavour: Flavour) -> None:
    async with flavour.block() as session:
        await flavour.do(session, add_item)
        await ping(flavour)
        assert await flavour.do(session, names) == ["one"]

    assert await flavour.work(names) == ["one"]


@on_server
async def test_one_that_is_down_is_named_without_its_password(flavour: Flavour) -> None:
    with pytest.raises(DatabaseUnavailableError) as caught:
        await ping(elsewhere(flavour, 1))

    message = str(caught.value)
    assert "database 'away' (postgresql+" in message
    assert "at 127.0.0.1:1, database " in message
    assert "can't be reached" in message
    assert "s3cret" not in message
    assert caught.value.__cause__ is not None


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """A server that takes connections, and never answers."""
    with listen() as listening:
        yield listening.getsockname()[1]


@on_server
async def test_one_that_does_not_answer_is_given_up_in_time(flavour: Flavour) -> None:
    async with silent_server() as port, asyncio.timeout(10):
        silent = elsewhere(flavour, port)
        with pytest.raises(DatabaseUnavailableError, match=r"within 0\.1 seconds"):
            await ping(silent, timeout=0.1)


@only("psycopg")
async def test_one_thread_waits_for_a_database_that_does_not_answer(
    flavour: Flavour,
) -> None:
    async with silent_server() as port:
        silent = elsewhere(flavour, port)
        before = threading.active_count()
        for _ in range(3):
            with pytest.raises(DatabaseUnavailableError):
                await ping(silent, timeout=0.05)

        assert threading.active_count() <= before + 2  # one is anyio's


async def test_a_full_pool_is_not_waited_for_without_a_limit(flavour: Flavour) -> None:
    narrow = flavour.another(pool_size=1, max_overflow=0)
    async with narrow.block() as session:
        await narrow.do(session, names)
        with pytest.raises(
            DatabaseUnavailableError, match=r"all 1 connections .* in use"
        ):
            await ping(narrow, timeout=0.1)

    await ping(narrow)
    await narrow.dispose()


@only("aiosqlite", "sqlite3")
async def test_a_database_in_memory_keeps_the_work_of_a_unit(flavour: Flavour) -> None:
    options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    memory = type(flavour.db)(make_url(flavour.url).set(database=None), **options)
    one = Flavour(flavour.name, flavour.url, memory)
    await one.create_tables()
    async with one.block() as session:
        await one.do(session, add_item)
        with pytest.raises(DatabaseUnavailableError):
            await ping(one, timeout=0.1)

    await ping(one)
    assert await one.work(names) == ["one"]
    await one.dispose()


@only("sqlite3")
async def test_a_sync_one_does_not_block_the_event_loop(flavour: Flavour) -> None:
    with pytest.raises(UsageError, match=r"to_thread\.run_sync\(db\.ping\)"):
        flavour.db.ping()


@one_of_each
@pytest.mark.parametrize("limit", [0, -1, None, "2"])
async def test_a_limit_that_is_none_is_refused(flavour: Flavour, limit: Any) -> None:
    with pytest.raises(UsageError, match=r"^timeout is .*; give seconds"):
        await ping(flavour, timeout=limit)


@only("asyncpg")
@pytest.mark.parametrize("handlers", [None, exception_handlers])
async def test_it_is_answered_with_503(flavour: Flavour, handlers: Any) -> None:
    away = elsewhere(flavour, 1)
    app = serve_fastapi(flavour, names, handlers=handlers)

    @app.get("/ready")
    async def ready() -> None:
        await away.db.ping()

    reply = await call(app, "GET", "/ready")

    assert reply.status == 503
    assert reply.json["detail"] == "The database can't be reached."
    assert dict(reply.starts[0]["headers"])[b"retry-after"] == b"5"
