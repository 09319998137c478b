"""A process forks after it has used the database: both work on, each for itself."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from sqlalchemy import StaticPool, create_engine, text
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from support.engines import over
from support.flavours import SERVERS, SYNC, Flavour, Observer, everywhere, only
from support.forking import fork, steps
from support.models import add_item, names
from support.sandboxes import WAYS, entered
from unitwork import Database, UsageError
from unitwork._concurrency.fork import renew_after_fork
from unitwork.testing import check_idle

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
]


ENDS = [Session.commit, Session.rollback, Session.close, names]


@pytest.fixture
def parent() -> Iterator[BlockingPortal]:
    """An event loop of the parent, which lives on in a thread while it forks."""
    with start_blocking_portal() as portal:
        yield portal


def in_loop(work: Callable[..., Any], *args: Any) -> Any:
    """Do asynchronous *work* in an event loop of its own."""
    return asyncio.run(work(*args))


def backend(session: Session) -> object:
    """What identifies the connection."""
    driver = session.connection().connection.driver_connection
    if session.get_bind().dialect.name == "sqlite":
        return id(driver)
    mysql = session.get_bind().dialect.name == "mysql"
    mine = "connection_id()" if mysql else "pg_backend_pid()"
    return session.execute(text(f"SELECT {mine}")).scalar_one()


async def add_from_both_sides(flavour: Flavour, name: str) -> object:
    await flavour.work(partial(add_item, name=name))
    return await flavour.work(backend)


@everywhere
def test_a_child_connects_anew_and_its_parent_goes_on(
    flavour: Flavour, parent: BlockingPortal, observer: Observer
) -> None:
    before = parent.call(add_from_both_sides, flavour, "before")

    child = fork(lambda: in_loop(add_from_both_sides, flavour, "child")).result()
    after = parent.call(add_from_both_sides, flavour, "after")
    parent.call(flavour.dispose)

    assert before == after != child
    assert observer.names() == ["before", "child", "after"]


@pytest.mark.parametrize("way", WAYS)
@everywhere
def test_a_child_leaves_the_sandboxes_of_its_parent_alone(
    way: str, flavour: Flavour, parent: BlockingPortal, observer: Observer
) -> None:
    async def test() -> list[str]:
        async with entered(way, flavour.db):
            await flavour.work(add_item)
            found: list[str] = await flavour.work(names)
            return found

    before = parent.call(test)
    fork(lambda: in_loop(add_from_both_sides, flavour, "child")).result()

    assert [*before, *parent.call(test)] == ["one", "child", "one"]
    assert observer.names() == ["child"]
    parent.call(flavour.dispose)


@everywhere
def test_a_child_that_ends_its_database_does_not_end_that_of_its_parent(
    flavour: Flavour, parent: BlockingPortal
) -> None:
    before = parent.call(add_from_both_sides, flavour, "before")

    fork(lambda: in_loop(flavour.dispose)).result()

    assert parent.call(add_from_both_sides, flavour, "after") == before
    parent.call(flavour.dispose)


@only(*SERVERS)
def test_what_is_in_use_in_the_parent_is_free_in_the_child(
    flavour: Flavour, parent: BlockingPortal
) -> None:
    small = flavour.another(pool_size=1, max_overflow=0, pool_timeout=2)

    def child() -> object:
        check_idle(small.db)
        return in_loop(small.work, names)

    async def fork_inside_a_unit() -> object:
        async with small.block() as session:
            await small.do(session, names)
            return await asyncio.get_running_loop().run_in_executor(
                None, lambda: fork(child).result()
            )

    assert parent.call(fork_inside_a_unit) == []
    parent.call(small.dispose)


@only(*SYNC, "pymysql")
@pytest.mark.parametrize(
    "end", [Session.commit, Session.rollback, names, Session.close]
)
def test_the_child_can_not_use_a_transaction_of_its_parent(
    flavour: Flavour, observer: Observer, end: Callable[[Session], Any]
) -> None:
    with flavour.db.transaction() as session:
        add_item(session)
        child = fork(lambda: refusal_of(flavour, session, end)).result()

    assert "the parent process" in child
    assert observer.names() == ["one"]


def refusal_of(flavour: Flavour, session: Any, end: Callable[[Session], Any]) -> str:
    try:
        end(session)
    except (UsageError, StatementError) as error:
        return str(error)
    return "no error"


@only(*SYNC, "pymysql")
def test_a_block_that_ends_in_both_processes_is_committed_once(
    flavour: Flavour, observer: Observer
) -> None:
    block = flavour.db.transaction()
    add_item(block.__enter__())

    child = fork(lambda: refusal_of(flavour, None, lambda _: leave(block))).result()
    leave(block)

    assert "the parent process" in child
    assert observer.names() == ["one"]


def leave(block: Any) -> None:
    block.__exit__(None, None, None)


@everywhere
def test_an_engine_that_becomes_a_database_in_the_child_connects_anew(
    flavour: Flavour, parent: BlockingPortal
) -> None:
    open_engine: Any = create_async_engine if flavour.is_async else create_engine
    engine = open_engine(flavour.url, pool_size=1, max_overflow=0)
    bare = Flavour(flavour.name, flavour.url, None)
    before = parent.call(use_without_units, flavour, engine)

    bare = over(flavour, lambda: engine)
    child = fork(lambda: in_loop(add_from_both_sides, bare, "child")).result()

    assert parent.call(use_without_units, flavour, engine) == before != child
    parent.call(bare.dispose)


async def use_without_units(flavour: Flavour, engine: Any) -> object:
    if flavour.is_async:
        async with engine.connect() as connection:
            return await connection.run_sync(lambda c: backend(Session(c)))
    with engine.connect() as connection:
        return backend(Session(connection))


@only("sqlite3", "aiosqlite")
def test_the_child_loses_nothing_when_its_parent_closes_the_file(
    flavour: Flavour, parent: BlockingPortal, observer: Observer
) -> None:
    """SQLite deletes the log that the last connection leaves."""
    parent.call(add_from_both_sides, flavour, "before")
    with steps() as step:

        async def work() -> None:
            await flavour.work(partial(add_item, name="child"))
            step.parent_goes_on()
            step.wait_in_child()
            await flavour.work(partial(add_item, name="afterwards"))

        child = fork(lambda: in_loop(work))
        step.wait_in_parent()
        parent.call(flavour.dispose)
        step.child_goes_on()
        child.result()

    assert observer.names() == ["before", "child", "afterwards"]


def test_a_child_has_a_copy_of_a_database_in_memory() -> None:
    options: Any = {"connect_args": {"check_same_thread": False}}
    engine = create_engine("sqlite://", poolclass=StaticPool, **options)
    memory = Flavour("sqlite3", "sqlite://", Database(engine))
    asyncio.run(memory.create_tables())
    asyncio.run(memory.work(add_item))

    child = fork(partial(in_loop, memory.work, names)).result()

    assert child == asyncio.run(memory.work(names)) == ["one"]
    memory.db.dispose()


def test_a_lock_that_another_thread_held_is_free_in_the_child() -> None:
    lock = renew_after_fork(threading.RLock())
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = fork(lambda: lock.acquire(timeout=1)).result()
    release.set()
    thread.join()

    assert child is True
