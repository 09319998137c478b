"""Blocks that are still open when the unit around them ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware

from support.asgi import Reply, call
from support.flavours import ASYNC, SYNC, Flavour, Observer, only
from support.models import Item, add_item
from unitwork import (
    Database,
    DatabaseSettings,
    DBSessionMiddleware,
    Outcome,
    SessionEndedError,
    UnitOfWork,
    UsageError,
    current_unit,
)

pytestmark = pytest.mark.anyio

JOINING = ["join", "savepoint"]
joining = pytest.mark.parametrize("nested", JOINING)
SENT = ["connection", "text"]
inside = pytest.mark.parametrize("nested", [*JOINING, "begin_nested", *SENT])


class Service:
    """Work in two halves, in a block that joins, with a pause between."""

    def __init__(self, flavour: Flavour, nested: str) -> None:
        self.flavour = flavour
        self.nested: Any = nested
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.units: list[UnitOfWork] = []

    async def work(self) -> None:
        session = self.flavour.db.current
        if self.nested == "connection":
            async with (await session.connection()).begin_nested():
                await self._do(session)
        elif self.nested == "text":
            await session.execute(text("SAVEPOINT service"))
            await self._do(session)
            await session.execute(text("RELEASE SAVEPOINT service"))
        elif self.nested == "begin_nested":
            async with self.flavour.db.current.begin_nested() as savepoint:
                await self._do(savepoint.session)
        else:
            async with self.flavour.db.transaction(nested=self.nested) as session:
                await self._do(session)

    async def work_by_a_helper(self) -> None:
        @asynccontextmanager
        async def helper() -> AsyncIterator[None]:
            await self.work()
            yield

        async with helper():
            pass

    async def _do(self, session: AsyncSession) -> None:
        await session.run_sync(add_item, "first half")
        self.begun.set()
        await self.go_on.wait()
        await session.run_sync(add_item, "second half")

    async def start(self, work: Callable[[], Any] | None = None) -> asyncio.Task[None]:
        self.units.append(current_unit())
        await self.flavour.db.current.run_sync(add_item, "request")
        task = asyncio.create_task((work or self.work)())
        await self.begun.wait()
        return task


def serve(flavour: Flavour, endpoint: Callable[..., Any]) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(endpoint)
    return app


# Joined by a task that outlives the endpoint


@only(*ASYNC)
@inside
@pytest.mark.parametrize("work", ["work", "work_by_a_helper"])
async def test_the_unit_waits_for_a_task_that_has_joined_it(
    flavour: Flavour, observer: Observer, nested: str, work: str
) -> None:
    service = Service(flavour, nested)
    tasks: list[asyncio.Task[None]] = []

    async def endpoint() -> None:
        tasks.append(await service.start(getattr(service, work)))
        asyncio.get_running_loop().call_later(0.05, service.go_on.set)

    reply = await call(serve(flavour, endpoint), "POST", "/")
    await tasks[0]

    assert reply.status == 200
    assert observer.names() == ["request", "first half", "second half"]


@only(*ASYNC)
@inside
@pytest.mark.parametrize("work", ["work", "work_by_a_helper"])
async def test_nothing_is_stored_if_the_task_takes_too_long(
    flavour: Flavour, observer: Observer, nested: str, work: str
) -> None:
    ours = flavour.another(settings=DatabaseSettings(end_timeout=0.1))
    service = Service(ours, nested)
    tasks: list[asyncio.Task[None]] = []

    async def endpoint() -> None:
        tasks.append(await service.start(getattr(service, work)))

    reply = await call(serve(ours, endpoint), "POST", "/")
    service.go_on.set()
    (error,) = await asyncio.gather(*tasks, return_exceptions=True)

    assert (reply.status, observer.names()) == (500, [])
    assert isinstance(reply.error, UsageError)
    assert "a unit of its own: `db.transaction()`" in str(reply.error)
    assert isinstance(error, SessionEndedError)
    assert service.units[0].outcome is Outcome.ROLLED_BACK
    await ours.dispose()


@only("aiosqlite")
@joining
async def test_a_task_that_does_nothing_more_learns_that_its_block_was_rolled_back(
    flavour: Flavour, observer: Observer, nested: Any
) -> None:
    ours = flavour.another(settings=DatabaseSettings(end_timeout=0.1))
    begun, go_on = asyncio.Event(), asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def work() -> None:
        async with ours.db.transaction(nested=nested) as session:
            await session.run_sync(add_item)
            begun.set()
            await go_on.wait()

    async def endpoint() -> None:
        tasks.append(asyncio.create_task(work()))
        await begun.wait()

    reply = await call(serve(ours, endpoint), "POST", "/")
    go_on.set()
    (error,) = await asyncio.gather(*tasks, return_exceptions=True)

    assert (reply.status, observer.names()) == (500, [])
    assert isinstance(error, Exception)
    await ours.dispose()


@only("aiosqlite")
@joining
async def test_a_block_waits_as_well(
    flavour: Flavour, observer: Observer, nested: str
) -> None:
    service = Service(flavour, nested)

    async with flavour.db.transaction():
        task = await service.start()
        asyncio.get_running_loop().call_later(0.05, service.go_on.set)
    await task

    assert observer.names() == ["request", "first half", "second half"]


@only("aiosqlite")
async def test_a_task_with_a_unit_of_its_own_is_not_waited_for(
    flavour: Flavour, observer: Observer
) -> None:
    service = Service(flavour, "own")
    tasks: list[asyncio.Task[None]] = []

    async def endpoint() -> None:
        current_unit()
        tasks.append(asyncio.create_task(service.work_by_a_helper()))
        await service.begun.wait()

    reply = await call(serve(flavour, endpoint), "POST", "/")
    service.go_on.set()
    await asyncio.gather(*tasks)

    assert reply.status == 200
    assert observer.names() == ["first half", "second half"]


# Held open by a dependency with `yield`


def dependencies(flavour: Flavour, nested: Any) -> dict[str, Callable[..., Any]]:
    db = flavour.db

    async def plain() -> AsyncIterator[AsyncSession]:
        async with db.transaction(nested=nested) as session:
            yield session

    @asynccontextmanager
    async def helper() -> AsyncIterator[AsyncSession]:
        async with db.transaction(nested=nested) as session:
            yield session

    async def by_a_helper() -> AsyncIterator[AsyncSession]:
        async with helper() as session:
            yield session

    def in_thread() -> Iterator[Session]:
        with db.transaction(nested=nested) as session:
            yield session

    @contextmanager
    def sync_helper() -> Iterator[Session]:
        with db.transaction(nested=nested) as session:
            yield session

    def by_a_helper_in_thread() -> Iterator[Session]:
        with sync_helper() as session:
            yield session

    if isinstance(db, Database):
        return {"plain": in_thread, "helper": by_a_helper_in_thread}
    return {"plain": plain, "helper": by_a_helper}


async def request_with(
    flavour: Flavour, nested: str, kind: str, *, between: bool = False, **options: Any
) -> Reply:
    app = FastAPI()
    if between:
        app.add_middleware(BaseHTTPMiddleware, dispatch=lambda r, go_on: go_on(r))
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    injected = Depends(dependencies(flavour, nested)[kind], **options)

    async def async_endpoint(session: Any = injected) -> None:
        session.add(Item(name="one"))

    def endpoint(session: Any = injected) -> None:
        session.add(Item(name="one"))

    is_sync = isinstance(flavour.db, Database)
    app.post("/")(endpoint if is_sync else async_endpoint)
    return await call(app, "POST", "/")


@only(*ASYNC, *SYNC)
@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("kind", ["plain", "helper"])
async def test_a_block_of_its_own_that_would_commit_later_is_refused(
    flavour: Flavour, observer: Observer, kind: str, between: bool
) -> None:
    reply = await request_with(flavour, "own", kind, between=between)

    assert (reply.status, observer.names()) == (500, [])
    assert isinstance(reply.error, UsageError)
    assert 'scope="function"' in str(reply.error)


@only(*ASYNC, *SYNC)
@pytest.mark.parametrize("kind", ["plain", "helper"])
async def test_with_the_scope_of_the_function_it_is_committed_before(
    flavour: Flavour, observer: Observer, kind: str
) -> None:
    reply = await request_with(flavour, "own", kind, scope="function")

    assert (reply.status, observer.names()) == (200, ["one"])


@only(*ASYNC, *SYNC)
@joining
@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("kind", ["plain", "helper"])
async def test_a_block_that_joins_is_committed_with_the_request(
    flavour: Flavour, observer: Observer, nested: str, kind: str, between: bool
) -> None:
    reply = await request_with(flavour, nested, kind, between=between)

    assert (reply.status, reply.error, observer.names()) == (200, None, ["one"])


@only("asyncpg")
async def test_a_block_that_only_reads_may_be_held_open(flavour: Flavour) -> None:
    async def reads() -> AsyncIterator[AsyncSession]:
        async with flavour.db.transaction(read_only=True) as session:
            yield session

    app, injected = FastAPI(), Depends(reads)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.get("/")
    async def endpoint(session: AsyncSession = injected) -> int | None:
        return await session.scalar(select(1))

    reply = await call(app, "GET", "/")

    assert (reply.status, reply.json) == (200, 1)
