"""A small shop on PostgreSQL, and what its customers do: for pictures of a real run."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request

from unitwork import (
    AsyncDatabase,
    DatabaseSettings,
    DBSessionMiddleware,
    UnitOfWork,
    transactional,
)
from unitwork.fastapi import exception_handlers, unit_of_work
from unitwork.inspector import Inspector
from unitwork.testing import CommitFault, commit_faults, no_waits

__all__ = ["Shop", "browse", "crowd", "opened"]

TABLES = """
DROP TABLE IF EXISTS orders, stock;
CREATE TABLE orders (id serial PRIMARY KEY, item text, paid bool DEFAULT false);
CREATE TABLE stock (item text PRIMARY KEY, count int NOT NULL);
INSERT INTO stock SELECT 'item ' || n, 1000 FROM generate_series(1, 20) AS n
"""
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")
TAKE = text("UPDATE stock SET count = count - 1 WHERE item = :item")


class Shop:
    """The application, with the inspector at /units, and its database."""

    def __init__(
        self, url: str, allow: Callable[[Request], bool] | None = None
    ) -> None:
        address = make_url(url).set(drivername="postgresql+asyncpg")
        self.db = AsyncDatabase(
            address,
            pool_size=5,
            max_overflow=3,
            settings=DatabaseSettings(verify_commit=False),
        )
        self.app = FastAPI(exception_handlers=exception_handlers)
        self.app.add_middleware(DBSessionMiddleware, db=self.db)
        self.inspector = Inspector(self.db, allow=allow)
        self.app.mount("/units", self.inspector)
        self._add_routes()

    def _add_routes(self) -> None:
        app, db = self.app, self.db
        session_of = Annotated[AsyncSession, Depends(db.session)]
        unit_in_use = Annotated[UnitOfWork, Depends(unit_of_work)]

        async def send_mail(number: int) -> None:
            async with db.transaction() as session:
                await session.execute(text("SELECT pg_sleep(0.004)"))

        @app.post("/orders", status_code=201)
        async def create_order(
            session: session_of, tasks: BackgroundTasks, item: str = "item 1"
        ) -> int:
            await session.execute(TAKE, {"item": item})
            number: int = (await session.scalars(INSERT, {"item": item})).one()
            tasks.add_task(send_mail, number)
            return number

        @app.get("/orders")
        async def list_orders(session: session_of) -> list[int]:
            return list(await session.scalars(text("SELECT id FROM orders LIMIT 50")))

        @app.post("/orders/{number}/pay")
        @transactional(isolation_level="SERIALIZABLE", attempts=3)
        async def pay(number: int, session: session_of, unit: unit_in_use) -> int:
            await session.execute(text("SELECT sum(count) FROM stock"))
            if unit.attempt == 1:
                async with db.engine.begin() as another:  # it is quicker
                    await another.execute(TAKE, {"item": "item 2"})
            await session.execute(TAKE, {"item": "item 2"})
            return number

        @app.get("/orders/{number}/summary")
        async def summarize(number: int, session: session_of, unit: unit_in_use) -> str:
            await session.execute(text("SELECT item FROM orders"))
            async with unit.outside("model"):
                await asyncio.sleep(0.03)
            await session.execute(text("UPDATE orders SET paid = true WHERE id = -1"))
            return "a lamp"

        @app.post("/orders/{number}/cancel")
        async def cancel(number: int, session: session_of) -> None:
            await session.execute(text("UPDATE orders SET paid = false WHERE id = -1"))
            raise HTTPException(409, "it has been sent")

        @app.get("/export")
        async def export(session: session_of) -> StreamingResponse:
            rows = await session.stream(text("SELECT item FROM stock"))

            async def lines() -> AsyncIterator[str]:
                async for row in rows:
                    await asyncio.sleep(0.001)
                    yield f"{row.item}\n"

            return StreamingResponse(lines())

        @app.get("/report")
        async def report(session: session_of, seconds: float) -> None:
            await session.execute(text(f"SELECT pg_sleep({seconds})"))

        @app.post("/stock/{item}/count")
        async def count_stock(item: str, session: session_of, seconds: float) -> None:
            await session.execute(TAKE, {"item": item})
            await asyncio.sleep(seconds)


@asynccontextmanager
async def opened(
    url: str | None = None, allow: Callable[[Request], bool] | None = None
) -> AsyncIterator[tuple[Shop, AsyncClient]]:
    """A shop with empty tables, and a client of it."""
    shop = Shop(url or os.environ["UNITWORK_TEST_POSTGRESQL"], allow)
    async with shop.db.transaction() as session:
        for statement in TABLES.split(";"):
            await session.execute(text(statement))
    transport = ASGITransport(shop.app, raise_app_exceptions=False)
    try:
        async with AsyncClient(transport=transport, base_url="http://shop") as client:
            yield shop, client
    finally:
        shop.inspector.close()
        await shop.db.dispose()


async def browse(shop: Shop, client: AsyncClient) -> None:
    """Do what customers do, one thing after another; a connection is lost in one."""
    for number in range(1, 4):
        await client.post("/orders", params={"item": f"item {number}"})
        await client.get("/orders")
        await client.get("/orders/1/summary")
    with no_waits():
        await client.post("/orders/1/pay")
    with commit_faults(shop.db, CommitFault.COMMITTED):
        await client.post("/orders", params={"item": "item 7"})
    await client.post("/orders/2/cancel")
    await client.get("/export")
    await client.get("/orders/2/summary")
    await client.post("/orders", params={"item": "item 4"})


@asynccontextmanager
async def crowd(client: AsyncClient, seconds: float) -> AsyncIterator[None]:
    """More customers than there are connections; two wait for a third one's lock."""
    calls = [
        ("POST", "/stock/item 1/count"),
        ("POST", "/stock/item 1/count"),
        ("POST", "/stock/item 1/count"),
        ("POST", "/stock/item 5/count"),
        *[("GET", "/report")] * 4,
        *[("GET", "/report")] * 3,
    ]
    tasks = []
    for method, path in calls:
        request = client.request(
            method, path, params={"seconds": seconds}, timeout=10 * seconds
        )
        tasks.append(asyncio.create_task(request))
        await asyncio.sleep(0.05)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
