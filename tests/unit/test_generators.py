"""`db.current` is that of a block inside its generator, and not for the consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session

from support.asgi import call
from support.flavours import Flavour, Observer, only
from support.models import Item
from unitwork import AsyncDatabase, Database, DBSessionMiddleware, current_unit

pytestmark = pytest.mark.anyio

of_server = only("asyncpg", "psycopg-async")
"""Two units write at once: not on SQLite."""


async def request(flavour: Flavour, endpoint: Callable[..., Any]) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(endpoint)
    reply = await call(app, "POST", "/")
    assert (reply.status, reply.error) == (200, None)


class Rows:
    """Generators with a block, and what `db.current` is inside it."""

    def __init__(self, db: AsyncDatabase) -> None:
        self.db = db
        self.inside: list[bool] = []

    async def plain(self) -> AsyncIterator[int]:
        async with self.db.transaction() as session:
            for number in range(3):
                self.inside.append(self.db.current is session)
                yield number
                self.inside.append(self.db.current is session)

    @asynccontextmanager
    async def _block(self) -> AsyncIterator[Any]:
        async with self.db.transaction() as session:
            yield session

    async def by_a_helper(self) -> AsyncIterator[int]:
        async with self._block() as session:
            self.inside.append(self.db.current is session)
            yield 0

    async def in_greenlet(self) -> AsyncIterator[int]:
        async with self.db.transaction() as session:
            yield 0
            self.inside.append(await session.run_sync(self._is_current))

    async def in_tasks_and_threads(self) -> AsyncIterator[int]:
        async with self.db.transaction() as session:
            yield 0
            in_thread = await asyncio.to_thread(lambda: self.db.current)
            (in_task,) = await asyncio.gather(self._current())
            self.inside.append(in_thread is in_task is session)

    async def _current(self) -> Any:
        return self.db.current

    def _is_current(self, session: Session) -> bool:
        return self.db.current.sync_session is session


KINDS = ["plain", "by_a_helper", "in_greenlet", "in_tasks_and_threads"]


@of_server
@pytest.mark.parametrize("kind", KINDS)
async def test_the_consumer_has_the_session_of_its_own_unit(
    flavour: Flavour, observer: Observer, kind: str
) -> None:
    rows, outside = Rows(flavour.db), list[bool]()

    async def endpoint() -> None:
        mine = await flavour.db.session()
        unit = current_unit()
        async for _ in getattr(rows, kind)():
            outside.append(flavour.db.current is mine and current_unit() is unit)
        flavour.db.current.add(Item(name="one"))

    await request(flavour, endpoint)

    assert (set(outside), set(rows.inside)) == ({True}, {True})
    assert observer.names() == ["one"]


@of_server
async def test_a_generator_that_is_left_early_leaves_no_session_behind(
    flavour: Flavour, observer: Observer
) -> None:
    rows, outside = Rows(flavour.db), list[bool]()

    async def endpoint() -> None:
        mine = await flavour.db.session()
        async for _ in rows.plain():
            flavour.db.current.add(Item(name="one"))
            break
        await asyncio.sleep(0.01)  # the event loop closes the generator
        outside.append(flavour.db.current is mine)
        flavour.db.current.add(Item(name="two"))

    await request(flavour, endpoint)

    assert (outside, observer.names()) == ([True], ["one", "two"])


@of_server
async def test_the_consumer_of_a_context_manager_is_inside(flavour: Flavour) -> None:
    found: list[bool] = []

    @asynccontextmanager
    async def block() -> AsyncIterator[Any]:
        async with flavour.db.transaction() as session:
            yield session

    async def endpoint() -> None:
        async with block() as session:
            found.append(flavour.db.current is session)

    await request(flavour, endpoint)

    assert found == [True]


@of_server
async def test_a_block_of_the_consumer_belongs_to_its_own_unit(
    flavour: Flavour, observer: Observer
) -> None:
    async def endpoint() -> None:
        mine = await flavour.db.session()
        async for _ in Rows(flavour.db).plain():
            async with flavour.db.transaction(nested="join") as session:
                assert session is mine
        mine.add(Item(name="one"))

    await request(flavour, endpoint)

    assert observer.names() == ["one"]


@only("psycopg")
async def test_the_consumer_of_a_sync_generator_has_its_own_as_well(
    flavour: Flavour, observer: Observer
) -> None:
    db: Database = flavour.db
    outside: list[bool] = []

    def rows() -> Iterator[int]:
        with db.transaction() as session:
            assert db.current is session
            yield 1
            assert db.current is session

    @contextmanager
    def block() -> Iterator[Session]:
        with db.transaction() as session:
            yield session

    def body(mine: Session) -> None:
        for _ in rows():
            outside.append(db.current is mine)
        with block() as session:
            outside.append(db.current is session)
        db.current.add(Item(name="one"))

    await flavour.work(body)

    assert (outside, observer.names()) == ([True, True], ["one"])


@only("aiosqlite")
async def test_without_a_unit_around_the_consumer_has_the_one_of_the_block(
    flavour: Flavour,
) -> None:
    found: list[Any] = []

    async def rows() -> AsyncIterator[Any]:
        async with flavour.db.transaction() as session:
            yield session

    async for session in rows():
        found.append(flavour.db.current is session)

    assert found == [True]
