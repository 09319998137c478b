"""An application with the inspector at /units, and what its views show."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from fastapi import FastAPI

from support.asgi import Reply, call
from support.flavours import Flavour
from support.models import add_item, names
from unitwork import DBSessionMiddleware
from unitwork.fastapi import exception_handlers
from unitwork.inspector import Inspector

LOCAL = [(b"host", b"localhost")]
BROWSER = [*LOCAL, (b"accept", b"text/html,*/*;q=0.8")]


@contextmanager
def inspected(flavour: Flavour, **options: Any) -> Iterator[FastAPI]:
    """POST /items/{name} stores an item, GET /items has their names."""
    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.get("/items")(flavour.endpoint(names))

    @app.post("/items/{name}", status_code=201)
    async def create(name: str) -> None:
        await flavour.do(flavour.db.current, lambda session: add_item(session, name).id)

    inspector = Inspector(flavour.db, **options)
    app.mount("/units", inspector)
    try:
        yield app
    finally:
        inspector.close()


async def get(app: Any, path: str, **scope: Any) -> Reply:
    """Get what the inspector has at *path*, as a local client."""
    return await call(app, "GET", f"/units/{path}", **{"headers": LOCAL, **scope})


async def look(app: Any, view: str, query: str = "") -> Any:
    """The JSON of *view*."""
    reply = await get(app, f"{view}.json{query}")
    assert reply.status == 200, reply
    return json.loads(reply.body)


async def last_unit(app: Any) -> Any:
    """The last one in the timeline."""
    return (await look(app, "timeline"))["units"][0]


@asynccontextmanager
async def held(flavour: Flavour) -> AsyncIterator[Any]:
    """A block whose unit holds a connection."""
    async with flavour.block() as session:
        await flavour.do(session, names)
        yield session
