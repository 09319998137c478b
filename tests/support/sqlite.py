"""What the tests of SQLite share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from sqlalchemy.orm import Session
from starlette.requests import Request

from support.asgi import call
from support.flavours import Flavour
from support.models import add_item
from unitwork import DBSessionMiddleware

METHODS = ["GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE"]


def serve(flavour: Flavour, body: Callable[[Session], Any]) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.api_route("/", methods=METHODS)(flavour.endpoint(body))
    return app


def add_inner(session: Session) -> None:
    add_item(session, "inner")


async def serve_inside(
    flavour: Flavour,
    method: str,
    first: Callable[[Session], Any],
    then: Callable[[Session], Any] = add_inner,
    **options: Any,
) -> Any:
    """In a request: do *first* with its session, then open a block that writes."""
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.api_route("/", methods=METHODS)
    async def endpoint(request: Request) -> None:
        await flavour.do(await flavour.db.session(request), first)
        await flavour.work(then, **options)

    async with asyncio.timeout(4):  # the busy timeout is 5
        return await call(app, method, "/")


def add_quietly(session: Session) -> None:
    add_item(session, "outer")
