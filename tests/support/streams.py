"""Responses that stream rows: an application, and what others see meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import select

from support.asgi import Message, Reply, call
from support.flavours import Flavour, Observer
from support.models import Item, add_item
from unitwork import DBSessionMiddleware

# sqlite3 fetches its rows as it likes, a cursor of its own in the server it has not.
STREAMING = ["aiosqlite", "psycopg", "psycopg-async", "asyncpg"]
QUERY = (
    select(Item.name)
    .where(Item.id <= 3)  # SQLite would show it what is written meanwhile
    .order_by(Item.id)
    .execution_options(yield_per=1)
)
# The end of their transaction ends them in the server; psycopg wants it said as well.
abandons_cursors = pytest.mark.filterwarnings("ignore:.*ServerCursor:ResourceWarning")
Body = Callable[[], AsyncIterator[str]]
BodyOfRows = Callable[[AsyncIterator[str]], AsyncIterator[str]]


class Streams:
    """Three rows, and endpoints that write one more and stream them all."""

    def __init__(self, flavour: Flavour, observer: Observer) -> None:
        self.flavour = flavour
        self.observer = observer
        self.app = FastAPI()
        self.app.add_middleware(DBSessionMiddleware, db=flavour.db)
        self.at_start: list[str] = []
        self.at_end: list[str] = []
        self.connections_in_use: list[int] = []
        self.kept: Any = None

    async def prepare(self) -> None:
        def prepare(session: Any) -> None:
            for name in "abc":
                add_item(session, name)

        await self.flavour.work(prepare)

    async def write(self, name: str) -> None:
        session = self.flavour.db.current
        await self.flavour.do(session, lambda s: add_item(s, name).id)

    async def open(self) -> Any:
        """The rows, which are yet to be fetched."""
        session = self.flavour.db.current
        if self.flavour.is_async:
            return await session.stream_scalars(QUERY)
        return await self.flavour.do(session, lambda s: s.scalars(QUERY))

    def look(self, message: Message) -> None:
        """Note what others can see at the start and at the last chunk."""
        status = self.flavour.db.pool_status()
        self.connections_in_use.append(status.checked_out)
        if message["type"] == "http.response.start":
            self.at_start = self.observer.names()
        elif not message.get("more_body"):
            self.at_end = self.observer.names()

    def stream(self, body: Body, *, after: str) -> None:
        """Let the endpoint write *after*, and answer with the chunks of *body*."""

        @self.app.post("/")
        async def endpoint() -> StreamingResponse:
            await self.write(after)
            return StreamingResponse(body())

    def stream_rows(self, body: BodyOfRows) -> None:
        """Let the endpoint answer with what *body* makes of the rows it fetches."""

        @self.app.post("/")
        async def endpoint() -> StreamingResponse:
            return StreamingResponse(body(each(await self.open())))

    async def call(self) -> Reply:
        return await call(self.app, "POST", "/", on_message=self.look)


async def each(rows: Any) -> AsyncIterator[str]:
    """The rows of a stream of either colour."""
    async for row in StreamingResponse(rows).body_iterator:
        yield str(row)
