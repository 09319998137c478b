"""A task whose savepoint is open while others work in the same session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from support.asgi import call
from support.flavours import Flavour
from support.models import add_item
from unitwork import DBSessionMiddleware

__all__ = ["Beside", "driver_of"]


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
        session: AsyncSession = self.flavour.db.current
        if self.by == "begin_nested":
            return session.begin_nested()
        if self.by == "connection":
            return nested_in_connection(session)
        if self.by == "SQL":
            return nested_by_sql(session)
        if self.by == "driver":
            return nested_in_driver(session)
        if self.by == "driver's SQL":
            return nested_by_sql_of_driver(session)
        block: AbstractAsyncContextManager[Any]
        block = self.flavour.db.transaction(nested="savepoint")
        return block

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


@asynccontextmanager
async def nested_in_connection(session: AsyncSession) -> AsyncIterator[None]:
    connection = await session.connection()
    async with connection.begin_nested():
        yield


@asynccontextmanager
async def nested_by_sql(session: AsyncSession) -> AsyncIterator[None]:
    await session.execute(text("SAVEPOINT by_sql"))
    try:
        yield
    except LookupError:
        await session.execute(text("rollback to savepoint by_sql"))
        raise
    await session.execute(text("RELEASE SAVEPOINT by_sql"))


async def driver_of(session: AsyncSession) -> Any:
    pooled = await (await session.connection()).get_raw_connection()
    return pooled.driver_connection


@asynccontextmanager
async def nested_in_driver(session: AsyncSession) -> AsyncIterator[None]:
    """By the driver's own method; asyncmy and aiosqlite have none."""
    async with (await driver_of(session)).transaction():
        yield


@asynccontextmanager
async def nested_by_sql_of_driver(session: AsyncSession) -> AsyncIterator[None]:
    driver = await driver_of(session)
    send = getattr(driver, "query", None) or driver.execute  # MySQL's drivers
    await send("SAVEPOINT x")
    try:
        yield
    except LookupError:
        await send("ROLLBACK TO x")
        raise
    await send("RELEASE SAVEPOINT x")
