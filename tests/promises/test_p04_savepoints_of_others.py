"""P4: a savepoint takes along what another task or thread did while it was open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from itertools import product
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from support.asgi import call
from support.flavours import ASYNC, Flavour, Observer, only
from support.models import Item, add_item
from unitwork import DBSessionMiddleware, UnexpectedRollbackError, current_unit

pytestmark = [pytest.mark.anyio, only(*ASYNC, "asyncmy")]

INSERT = text("INSERT INTO item (name) VALUES ('beside')")


class Beside:
    """A task with a savepoint, open until it is to fail or to end well."""

    def __init__(self, flavour: Flavour, how: str, by: str) -> None:
        self.flavour = flavour
        self.how = how
        self.by = by
        self.is_open, self.go_on = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = LookupError()
        self.work: Callable[[Session], Any] = lambda session: None

    async def savepoint(self) -> None:
        with suppress(LookupError):
            async with self._begun():
                self.is_open.set()
                await self.go_on.wait()
                await self.flavour.db.current.run_sync(self.work)
                if self.error is not None:
                    raise self.error

    def _begun(self) -> AbstractAsyncContextManager[Any]:
        if self.by == "begin_nested":
            begun: AbstractAsyncContextManager[Any]
            begun = self.flavour.db.current.begin_nested()
            return begun
        return self.flavour.db.transaction(nested="savepoint")

    async def around(self, body: Callable[[Session], Any]) -> None:
        """A unit that runs *body* while the savepoint of the task is open."""

        async def work(session: AsyncSession) -> None:
            await session.run_sync(add_item, "before")
            task = asyncio.create_task(self.savepoint())
            await self.is_open.wait()
            await session.run_sync(body)
            self.go_on.set()
            await asyncio.gather(task, return_exceptions=True)

        await self.in_unit(work)

    async def in_unit(self, work: Callable[[AsyncSession], Awaitable[None]]) -> None:
        """Do *work* in a block or request; raise its error."""
        if self.how == "block":
            async with self.flavour.db.transaction() as session:
                await work(session)
            return
        reply = await call(serve(self.flavour, work), "POST", "/")
        if reply.error is not None:
            raise reply.error


def serve(flavour: Flavour, work: Callable[[AsyncSession], Awaitable[None]]) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def endpoint() -> None:
        await work(flavour.db.current)

    return app


@pytest.fixture(
    params=product(["block", "request"], ["transaction", "begin_nested"]), ids="-".join
)
def beside(flavour: Flavour, observer: Observer, request: Any) -> Beside:
    return Beside(flavour, *request.param)


async def is_refused(beside: Beside, body: Callable[[Session], Any]) -> None:
    with pytest.raises(UnexpectedRollbackError, match="another task or thread"):
        await beside.around(body)


async def test_a_statement_beside_it(beside: Beside, observer: Observer) -> None:
    await is_refused(beside, lambda session: session.execute(INSERT))

    assert observer.names() == []


async def test_a_flush_beside_it(beside: Beside, observer: Observer) -> None:
    await is_refused(beside, add_item)

    assert observer.names() == []


async def test_a_failing_flush_beside_it(beside: Beside, observer: Observer) -> None:
    def body(session: Session) -> None:
        session.execute(INSERT)
        with suppress(IntegrityError):
            add_item(session, "before")

    beside.error = None
    await is_refused(beside, body)

    assert observer.names() == []


async def test_what_is_added_beside_it(beside: Beside, observer: Observer) -> None:
    beside.work = Session.flush
    await is_refused(beside, lambda session: session.add(Item(name="beside")))

    assert observer.names() == []


async def test_a_hook_registered_beside_it(beside: Beside, observer: Observer) -> None:
    await is_refused(beside, lambda session: current_unit().on_commit(print))

    assert observer.names() == []


async def test_a_read_beside_it_loses_nothing(
    beside: Beside, observer: Observer
) -> None:
    await beside.around(lambda session: session.scalars(select(Item)).all())

    assert observer.names() == ["before"]


async def test_what_is_done_beside_one_that_ends_well_is_stored(
    beside: Beside, observer: Observer
) -> None:
    beside.error = None
    await beside.around(lambda session: session.execute(INSERT))

    assert observer.names() == ["before", "beside"]


async def test_a_task_of_its_own_may_work_inside_it(
    flavour: Flavour, observer: Observer
) -> None:
    async with flavour.db.transaction() as session:
        await session.run_sync(add_item, "before")
        with suppress(LookupError):
            async with session.begin_nested():
                await asyncio.create_task(session.run_sync(add_item, "inside"))
                raise LookupError

    assert observer.names() == ["before"]


async def test_a_savepoint_inside_it_that_it_releases_too_early(
    beside: Beside, flavour: Flavour, observer: Observer
) -> None:
    async def work(session: AsyncSession) -> None:
        task = asyncio.create_task(beside.savepoint())
        await beside.is_open.wait()
        with suppress(LookupError):
            async with session.begin_nested():
                await session.run_sync(add_item, "undone")
                beside.go_on.set()
                await task
                raise LookupError

    beside.error = None
    with pytest.raises(UnexpectedRollbackError, match="another task or thread"):
        await beside.in_unit(work)

    assert observer.names() == []
