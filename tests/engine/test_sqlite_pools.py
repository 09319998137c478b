"""SQLite: pools of other kinds, and in-memory databases in all spellings."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import AssertionPool, NullPool, SingletonThreadPool, StaticPool

from support.asgi import call
from support.engines import over
from support.flavours import Flavour, only
from support.models import add_item, names
from support.pool import eventually
from support.sqlite import add_quietly, serve, serve_inside
from unitwork import Database, PoolTimeoutError, UsageError

pytestmark = pytest.mark.anyio
sqlite = only("sqlite3", "aiosqlite")

MEMORY = {"sqlite3": "sqlite://", "aiosqlite": "sqlite+aiosqlite://"}
ARGUMENTS = {"connect_args": {"check_same_thread": False}}


def by_url(flavour: Flavour, url: str, **options: Any) -> Flavour:
    return Flavour(flavour.name, url, type(flavour.db)(url, **options))


def by_engine(flavour: Flavour, url: str, **options: Any) -> Flavour:
    make: Any = create_async_engine if flavour.is_async else create_engine
    return over(flavour, make(url, **options))


MADE = [by_url, by_engine]
Make = Callable[..., Flavour]


async def close(flavour: Flavour) -> None:
    assert flavour.db.pool_status().checked_out == 0
    disposed = flavour.db.engine.dispose()
    if disposed is not None:
        await disposed


@pytest.fixture(params=MADE)
async def static(
    request: pytest.FixtureRequest, flavour: Flavour
) -> AsyncIterator[Flavour]:
    """The usual database of tests: in memory, with one connection for all."""
    options = {**ARGUMENTS, "poolclass": StaticPool}
    static = request.param(flavour, MEMORY[flavour.name], **options)
    await static.create_tables()
    yield static
    await close(static)


@sqlite
@pytest.mark.parametrize("make", MADE)
@pytest.mark.parametrize("poolclass", [StaticPool, NullPool, AssertionPool])
async def test_units_take_turns_whatever_the_pool_of_a_file(
    flavour: Flavour, make: Make, poolclass: Any
) -> None:
    made = make(flavour, flavour.url, poolclass=poolclass, **ARGUMENTS)

    added = (made.work(partial(add_item, name=f"{n}")) for n in range(8))
    await asyncio.gather(*added)

    assert sorted(await made.work(names)) == [f"{n}" for n in range(8)]
    await close(made)


@sqlite
@pytest.mark.parametrize("poolclass", [StaticPool, NullPool, AssertionPool])
async def test_units_take_turns_whatever_the_pool_of_a_database_in_memory(
    flavour: Flavour, poolclass: Any
) -> None:
    options = {**ARGUMENTS, "poolclass": poolclass}
    made = by_url(flavour, MEMORY[flavour.name], **options)
    await made.create_tables()

    added = (made.work(partial(add_item, name=f"{n}")) for n in range(8))
    await asyncio.gather(*added)

    assert sorted(await made.work(names)) == [f"{n}" for n in range(8)]
    await close(made)


def test_a_pool_for_each_thread_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="SingletonThreadPool"):
        Database("sqlite://", poolclass=SingletonThreadPool)
    with pytest.raises(UsageError, match="give the URL"):
        Database(create_engine("sqlite://"))


@sqlite
async def test_an_option_that_the_pool_does_not_know_is_refused_in_words(
    flavour: Flavour,
) -> None:
    with pytest.raises(UsageError, match="pool_size"):
        by_url(flavour, flavour.url, poolclass=NullPool, pool_size=3)


# One connection for all


@sqlite
async def test_overlapping_requests_take_turns(static: Flavour) -> None:
    app = serve(static, lambda s: add_item(s, f"{len(names(s))}").id)

    replies = await asyncio.gather(*(call(app, "POST", "/") for _ in range(8)))

    assert [reply.status for reply in replies] == [200] * 8
    assert await static.work(names) == [f"{n}" for n in range(8)]


@sqlite
async def test_a_unit_that_fails_takes_no_other_with_it(static: Flavour) -> None:
    def fail(session: Session) -> None:
        add_item(session, "dropped")
        raise LookupError

    results = await asyncio.gather(
        static.work(add_item), static.work(fail), return_exceptions=True
    )

    assert isinstance(results[1], LookupError)
    assert await static.work(names) == ["one"]


@sqlite
async def test_a_block_inside_a_request_is_refused(static: Flavour) -> None:
    reply = await serve_inside(static, "POST", add_quietly)

    assert isinstance(reply.error, UsageError)
    assert 'nested="join"' in str(reply.error)
    assert await static.work(names) == []


@sqlite
async def test_a_block_inside_a_request_may_join(static: Flavour) -> None:
    reply = await serve_inside(static, "POST", add_quietly, nested="join")

    assert (reply.status, reply.error) == (200, None)
    assert await static.work(names) == ["outer", "inner"]


@sqlite
async def test_a_connection_left_in_a_transaction_is_not_thrown_away(
    static: Flavour,
) -> None:
    await static.work(add_item)
    await static.work(lambda session: session.execute(text("SELECT 1")).scalar())
    leave: Any = static.db.engine.connect()
    connection = await leave if static.is_async else leave
    sent = connection.exec_driver_sql("INSERT INTO item (name) VALUES ('other')")
    await sent if static.is_async else sent

    assert await static.work(names) == ["one", "other"]

    closed = connection.close()
    await closed if static.is_async else closed


@sqlite
async def test_a_database_survives_an_invalidated_connection(static: Flavour) -> None:
    await static.work(add_item)

    def invalidate(session: Session) -> None:
        names(session)
        session.connection().invalidate()

    with suppress(Exception):
        await static.work(invalidate)

    assert await static.work(names) == ["one"]


@only("aiosqlite")
async def test_a_database_survives_a_cancelled_statement(static: Flavour) -> None:
    await static.work(add_item)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 1e8)"
    statement = text(f"{endless} SELECT max(i) FROM n")
    task = asyncio.create_task(static.work(lambda s: s.execute(statement)))
    await asyncio.wait((task,), timeout=0.05)

    task.cancel()
    await asyncio.wait((task,))

    assert task.cancelled()
    assert await static.work(names) == ["one"]


@only("sqlite3")
async def test_two_threads_of_the_users_own_take_turns(static: Flavour) -> None:
    inside, release = Event(), Event()

    def first() -> None:
        with static.db.transaction() as session:
            add_item(session, "first")
            inside.set()
            release.wait(10)

    def second() -> None:
        with static.db.transaction() as session:
            add_item(session, "second")

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(first)
        inside.wait(10)
        two = threads.submit(second)
        await eventually(lambda: static.db.pool_status().waiting)
        release.set()
        one.result(10)
        two.result(10)

    assert await static.work(names) == ["first", "second"]


@sqlite
async def test_who_waits_too_long_for_the_one_connection_is_told(
    static: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = static.db._core.factory.gate
    monkeypatch.setattr(gate, "timeout", 0.01)
    await gate.acquire()

    with pytest.raises(PoolTimeoutError, match="1 units hold them all"):
        await static.work(names)

    gate.release()


# Spellings

SPELLINGS = [
    "sqlite://",
    "sqlite:///:memory:",
    "sqlite:///file::memory:?uri=true",
    "sqlite:///file::memory:?cache=shared&uri=true",
    "sqlite:///file:spelled?mode=memory&cache=shared&uri=true",
    "sqlite:///file:spelled?mode=memory&uri=true",
    "sqlite:///file:/spelled?vfs=memdb&uri=true",
]


@sqlite
@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_each_spelling_of_a_database_in_memory_will_do(
    flavour: Flavour, spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scheme = MEMORY[flavour.name].partition(":")[0]
    memory = by_url(flavour, spelling.replace("sqlite", scheme, 1))
    await memory.create_tables()

    added = (memory.work(partial(add_item, name=f"{n}")) for n in range(8))
    await asyncio.gather(*added)
    await close(memory)

    assert sorted(await memory.work(names)) == [f"{n}" for n in range(8)]
    assert "spelled" not in str(os.listdir(tmp_path))  # noqa: PTH208
    await memory.dispose()


@sqlite
async def test_a_named_database_in_memory_is_shared_with_others_of_the_name(
    flavour: Flavour,
) -> None:
    scheme = MEMORY[flavour.name].partition(":")[0]
    url = f"{scheme}:///file:named?mode=memory&cache=shared&uri=true"
    one, two = by_url(flavour, url), by_url(flavour, url)
    await one.create_tables()

    await one.work(add_item)

    assert await two.work(names) == ["one"]
    await close(one)
    await close(two)


@only("aiosqlite")
async def test_an_engine_in_memory_may_check_its_thread(flavour: Flavour) -> None:
    """Nothing of the connection is read outside the thread that aiosqlite has."""
    memory = over(flavour, create_async_engine(MEMORY["aiosqlite"]))
    await memory.create_tables()

    await memory.work(add_item)

    assert await memory.work(names) == ["one"]
    await memory.dispose()
