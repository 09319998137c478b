"""P4: another task or thread ends the transaction itself while its unit ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from sqlite3 import Connection, ProgrammingError
from typing import Any

import aiosqlite
import pytest
from anyio import to_thread
from fastapi import FastAPI
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from support.asgi import call
from support.driver import send
from support.flavours import ASYNC, EVERY, Flavour, Observer, only
from support.models import Item, add_item
from support.pool import check_pool_is_whole
from support.strays import NAME, Stray
from unitwork import DBSessionMiddleware, Outcome, UnexpectedRollbackError

pytestmark = pytest.mark.anyio

ENDLESS = text(
    "WITH RECURSIVE n(i) AS (SELECT begins() UNION ALL SELECT 1 FROM n) "
    "INSERT INTO item (name) SELECT count(*) FROM n"
)
BESIDE = text("INSERT INTO item (name) VALUES ('beside')")
ENDS: dict[str, Callable[[Session], Any]] = {
    "flush": add_item,  # its name is there already
    "rollback": Session.rollback,
    "commit": Session.commit,
}


def commit(session: Session) -> Any:
    session.commit()


def roll_back(session: Session) -> Any:
    session.rollback()


def roll_back_a_savepoint(session: Session) -> Any:
    savepoint = session.begin_nested()
    add_item(session, NAME)
    savepoint.rollback()


@only(*EVERY)
async def test_a_commit_that_is_under_way_is_waited_for(
    flavour: Flavour, observer: Observer
) -> None:
    stray = Stray(flavour, commit, stops_at="commit")

    reply = await stray.request_that_waits(200)

    assert (reply.status, reply.complete) == (200, True)
    assert (observer.names(), stray.hooks) == (["one"], ["on_commit"])
    assert await stray.error() is None
    await check_pool_is_whole(flavour)


@only(*EVERY)
async def test_and_is_no_rollback_if_the_request_fails(
    flavour: Flavour, observer: Observer
) -> None:
    stray = Stray(flavour, commit, stops_at="commit")

    reply = await stray.request_that_waits(409)

    assert (reply.status, stray.outcome) == (409, Outcome.COMMITTED)
    assert (observer.names(), stray.hooks) == (["one"], ["on_commit"])
    await check_pool_is_whole(flavour)


@only(*EVERY)
async def test_a_rollback_that_is_under_way_is_no_commit(
    flavour: Flavour, observer: Observer
) -> None:
    stray = Stray(flavour, roll_back, stops_at="rollback")

    reply = await stray.request_that_waits(200)

    assert (reply.status, stray.outcome) == (200, Outcome.ROLLED_BACK)
    assert (observer.names(), stray.hooks) == ([], ["on_rollback"])
    await check_pool_is_whole(flavour)


@only(*EVERY)
async def test_a_rollback_whose_connection_is_being_returned_is_waited_for(
    flavour: Flavour, observer: Observer
) -> None:
    stray = Stray(flavour, roll_back, stops_at="checkin", has_hooks=False)

    reply = await stray.request_that_waits(200)

    assert (reply.status, stray.outcome) == (200, Outcome.ROLLED_BACK)
    assert await stray.error() is None
    assert observer.names() == []
    await check_pool_is_whole(flavour)


@only(*EVERY)
async def test_a_savepoint_that_is_rolled_back_is_not_committed(
    flavour: Flavour, observer: Observer
) -> None:
    stray = Stray(flavour, roll_back_a_savepoint, stops_at="rollback_savepoint")

    reply = await stray.request_that_waits(200)

    assert (reply.status, reply.complete) == (200, True)
    assert (observer.names(), stray.hooks) == (["one"], ["on_commit"])
    await check_pool_is_whole(flavour)


@pytest.mark.parametrize(
    ("flavour", "ends"),
    [*((each, 0) for each in ASYNC), ("psycopg-async", 1), ("asyncpg", 1)],
    indirect=["flavour"],
)
async def test_a_rollback_by_the_connection_that_is_under_way_is_no_success(
    flavour: Flavour, observer: Observer, ends: int
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    rollbacks: list[asyncio.Task[None]] = []

    @app.post("/")
    async def create() -> None:
        session: AsyncSession = flavour.db.current
        session.add(Item(name="one"))
        connection = await session.connection()
        await session.flush()
        for _ in range(ends):  # the connection is lost
            observer.terminate_all()
        rollbacks.append(asyncio.create_task(connection.rollback()))
        await asyncio.sleep(0)  # ROLLBACK is sent, and not answered

    reply = await call(app, "POST", "/")

    assert isinstance(reply.error, UnexpectedRollbackError)
    await asyncio.wait(rollbacks)
    [rollback.exception() for rollback in rollbacks]
    assert observer.names() == []
    await check_pool_is_whole(flavour)


@only("psycopg-async", "asyncpg")
@pytest.mark.parametrize("turns", [0, 1, 8])
async def test_a_rollback_that_is_still_looked_at_is_no_commit(
    flavour: Flavour, observer: Observer, turns: int
) -> None:
    app, tasks = FastAPI(), []
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def endpoint() -> None:
        session: AsyncSession = flavour.db.current
        await session.run_sync(add_item)
        await session.run_sync(send, "ROLLBACK")
        connection = await session.connection()
        tasks.append(asyncio.create_task(connection.rollback()))
        for _ in range(turns):
            await asyncio.sleep(0)

    reply = await call(app, "POST", "/")
    await asyncio.wait(tasks)

    assert (reply.status, observer.names()) == (500, [])
    await check_pool_is_whole(flavour)


@only("aiosqlite")
@pytest.mark.parametrize("end", ENDS)
async def test_a_statement_beside_an_end_is_not_committed_by_itself(
    flavour: Flavour, observer: Observer, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    beside = Beside(flavour, end, monkeypatch)

    with suppress(IntegrityError):
        await beside.end(within=0.05)

    assert await beside.error() is None
    assert observer.names() == (["one", "beside"] if end == "commit" else [])
    await check_pool_is_whole(flavour)


@only("aiosqlite")
@pytest.mark.parametrize("end", ["rollback", "commit"])
async def test_nor_one_that_begins_after_the_time_limit_of_the_end(
    hasty: Flavour, observer: Observer, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    beside = Beside(hasty, end, monkeypatch)
    event.listen(hasty.sync_engine, "invalidate", beside.go_on)

    with lost_by(end):
        await beside.end()

    assert isinstance(await beside.error(), (SQLAlchemyError, ProgrammingError))
    assert observer.names() == []
    await check_pool_is_whole(hasty)


@only("sqlite3")
@pytest.mark.parametrize("end", ["rollback", "commit"])
async def test_nor_one_that_a_thread_executes_until_it_is_interrupted(
    hasty: Flavour, observer: Observer, end: str
) -> None:
    begun = threading.Event()

    def connected(connection: Connection, record: object) -> None:
        connection.create_function("begins", 0, begun.set)

    event.listen(hasty.sync_engine, "connect", connected)

    async with hasty.block() as session:
        await hasty.do(session, add_item)
        task = asyncio.create_task(hasty.do(session, lambda s: s.execute(ENDLESS)))
        await to_thread.run_sync(begun.wait)
        with lost_by(end):
            await hasty.do(session, ENDS[end])
        session.rollback()

    with pytest.raises(OperationalError, match="interrupted"):
        await task
    assert observer.names() == []
    await check_pool_is_whole(hasty)


def lost_by(end: str) -> AbstractContextManager[object]:
    """Expect that a commit raises; a rollback does not.

    SQLAlchemy wraps the error while another thread handles one of the same connection.
    """
    if end == "rollback":
        return nullcontext()
    return pytest.raises(
        (UnexpectedRollbackError, DBAPIError), match="work of this unit"
    )


class Beside:
    """A transaction with a statement of another task that aiosqlite is yet to begin."""

    def __init__(
        self, flavour: Flavour, end: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._flavour, self._end = flavour, ENDS[end]
        self._execution = Held(aiosqlite.Cursor.execute)
        self._patch = monkeypatch
        self._task: asyncio.Task[Any] | None = None

    async def end(self, within: float | None = None) -> None:
        """End it; after *within* seconds the statement goes on."""
        async with self._flavour.db.transaction() as session:
            await session.run_sync(add_item)
            self._patch.setattr(aiosqlite.Cursor, "execute", self._execution.make)
            self._task = asyncio.create_task(session.execute(BESIDE))
            await self._execution.is_reached.wait()
            if within is not None:
                asyncio.get_running_loop().call_later(within, self.go_on)
            await session.run_sync(self._end)

    def go_on(self, *_: Any) -> None:
        self._execution.go_on.set()

    async def error(self) -> BaseException | None:
        assert self._task is not None
        await asyncio.wait((self._task,))
        return self._task.exception()


class Held:
    """A method of aiosqlite's whose first call waits, once it has begun."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.is_reached, self.go_on = asyncio.Event(), asyncio.Event()

    @property
    def make(self) -> Callable[..., Any]:
        async def held(*args: Any) -> Any:
            if not self.is_reached.is_set():
                self.is_reached.set()
                await self.go_on.wait()
            return await self._method(*args)

        return held
