"""Real databases for tests: each is new, and the application follows to it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextvars import copy_context
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.orm import Session

from support.asgi import call
from support.endpoints import serve_fastapi
from support.engines import make_maker, open_engine, over
from support.flavours import Flavour, Observer, everywhere, only
from support.models import Item, add_item, create_tables, names
from support.real_databases import create_and_fill, lent, real_databases
from unitwork import UsageError
from unitwork._real_databases.real_databases import RealDatabases
from unitwork.testing import check_idle

pytestmark = pytest.mark.anyio

IN_MEMORY = pytest.mark.parametrize("flavour", ["sqlite3", "aiosqlite"], indirect=True)


@everywhere
async def test_each_is_new(flavour: Flavour, observer: Observer) -> None:
    with real_databases(flavour) as databases:
        for _ in range(3):
            with lent(databases):
                await flavour.work(add_item)
                assert await flavour.work(names) == ["one"]

    assert observer.names() == []


@everywhere
async def test_numbers_begin_at_one_in_each(flavour: Flavour) -> None:
    def first_number(session: Session) -> int:
        return add_item(session).id

    with real_databases(flavour) as databases:
        for _ in range(3):
            with lent(databases):
                assert await flavour.work(first_number) == 1


@everywhere
async def test_rows_of_the_schema_are_in_each(flavour: Flavour) -> None:
    def replace(session: Session) -> None:
        assert names(session) == ["seed"]
        session.execute(text("DELETE FROM item"))
        session.add(Item(name="two"))

    with real_databases(flavour, (create_and_fill, "filled")) as databases:
        for _ in range(3):
            with lent(databases):
                await flavour.work(replace)


@everywhere
async def test_a_changed_table_is_not_there_for_the_next_test(flavour: Flavour) -> None:
    def change(session: Session) -> None:
        session.execute(text("ALTER TABLE item ADD COLUMN note VARCHAR(9)"))

    with real_databases(flavour) as databases:
        for _ in range(3):
            with lent(databases):
                await flavour.work(change)


@everywhere
async def test_requests_follow(flavour: Flavour, observer: Observer) -> None:
    app = serve_fastapi(flavour, lambda s: add_item(s) and names(s))

    with real_databases(flavour) as databases, lent(databases):
        reply = await call(app, "POST", "/")
        check_idle(flavour.db)
        assert await flavour.work(names) == ["one"]

    assert (reply.status, observer.names()) == (200, [])


@everywhere
async def test_so_do_a_sessionmaker_and_what_uses_the_engine(flavour: Flavour) -> None:
    engine = open_engine(flavour)
    other = over(flavour, make_maker(flavour, engine))

    with real_databases(other) as databases, lent(databases):
        await other.work(add_item)
        own = over(flavour, engine)
        assert await own.work(names) == ["one"]

    await other.dispose()


@everywhere
async def test_a_leak_is_found(flavour: Flavour) -> None:
    with real_databases(flavour) as databases, lent(databases):
        async with flavour.block() as session:
            await flavour.do(session, names)
            with pytest.raises(AssertionError, match="connections checked out: 1"):
                check_idle(flavour.db)


@everywhere
async def test_the_engine_follows_after_it_was_disposed_of(flavour: Flavour) -> None:
    with real_databases(flavour) as databases, lent(databases):
        await flavour.work(add_item)
        await flavour.dispose()
        assert await flavour.work(names) == ["one"]


@everywhere
async def test_two_tests_at_once_have_two(flavour: Flavour) -> None:
    async def use(name: str) -> list[str]:
        with lent(databases):
            await flavour.work(lambda session: add_item(session, name) and None)
            await both.wait()
            found: list[str] = await flavour.work(names)
            return found

    both = asyncio.Barrier(2)
    with real_databases(flavour) as databases:
        assert await asyncio.gather(use("a"), use("b")) == [["a"], ["b"]]


@only("psycopg", "sqlite3")
async def test_a_thread_of_the_test_follows(flavour: Flavour) -> None:
    def work() -> None:
        with flavour.db.transaction() as session:
            add_item(session)

    with real_databases(flavour) as databases, lent(databases):
        thread = Thread(target=copy_context().run, args=[work])
        thread.start()
        thread.join()
        assert await flavour.work(names) == ["one"]


@IN_MEMORY
async def test_a_database_in_memory_is_copied(flavour: Flavour) -> None:
    scheme = flavour.url.partition("://")[0]
    memory = Flavour(flavour.name, scheme, type(flavour.db)(f"{scheme}://"))

    with real_databases(memory) as databases:
        for _ in range(2):
            with lent(databases):
                await memory.work(add_item)
                assert await memory.work(names) == ["one"]

    await memory.dispose()


def test_a_private_database_in_memory_is_copied() -> None:
    engine = create_engine("sqlite://")
    databases = RealDatabases(engine, (create_tables, "tables"))
    with lent(databases), Session(engine) as session:
        add_item(session)
        session.commit()
        assert names(session) == ["one"]
    databases.close()


@everywhere
async def test_what_the_schema_raises_is_raised_in_the_test(flavour: Flavour) -> None:
    def fail(connection: Connection) -> None:
        raise LookupError("no such table")

    with (  # named: workers share what a run has made by a function without a name
        real_databases(flavour, (fail, "what raises")) as databases,
        pytest.raises(LookupError, match="no such table"),
        lent(databases),
    ):
        pass


def test_an_engine_that_connects_by_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    engine = create_engine(f"sqlite:///{path}", creator=lambda: sqlite3.connect(path))
    databases = RealDatabases(engine, (create_tables, "tables"))

    with lent(databases), pytest.raises(UsageError, match="a function of its own"):
        engine.connect()

    databases.close()
