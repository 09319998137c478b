"""Savepoints of `begin_nested()` that are still open when their unit ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from fastapi import Depends, FastAPI, WebSocket
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.middleware.base import BaseHTTPMiddleware

from support.asgi import call
from support.flavours import ASYNC, Flavour, Observer, only
from support.models import add_item
from support.pool import eventually
from support.sockets import serve as serve_socket
from support.websocket import Socket
from unitwork import DBSessionMiddleware
from unitwork._unit.context import innermost

pytestmark = [pytest.mark.anyio, only(*ASYNC)]

placed = pytest.mark.parametrize("has_middleware", [False, True])
"""Whether the endpoint runs in another task than the one that ends its unit."""


def serve(flavour: Flavour, *, has_middleware: bool = False) -> FastAPI:
    app = FastAPI()
    if has_middleware:
        app.add_middleware(
            BaseHTTPMiddleware, dispatch=lambda request, next: next(request)
        )
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    return app


@placed
async def test_one_that_a_dependency_holds_open_is_stored(
    flavour: Flavour, observer: Observer, has_middleware: bool
) -> None:
    app = serve(flavour, has_middleware=has_middleware)

    async def within_savepoint() -> AsyncIterator[None]:
        async with flavour.db.current.begin_nested():
            yield

    @app.post("/", dependencies=[Depends(within_savepoint)])
    async def create() -> None:
        await flavour.db.current.run_sync(add_item)

    assert (await call(app, "POST", "/")).status == 200
    assert observer.names() == ["one"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
async def test_one_of_an_eager_task_is_waited_for(
    flavour: Flavour, observer: Observer
) -> None:
    loop = asyncio.get_running_loop()
    app, tasks = serve(flavour), set[asyncio.Task[None]]()

    async def work(session: AsyncSession) -> None:
        async with session.begin_nested():
            await session.run_sync(add_item, "first half")
            unit = innermost()
            await eventually(lambda: unit.is_ending)
            await session.run_sync(add_item, "second half")

    @app.post("/")
    async def create() -> None:
        session: AsyncSession = flavour.db.current
        await session.connection()
        loop.set_task_factory(asyncio.eager_task_factory)
        tasks.add(asyncio.create_task(work(session)))
        loop.set_task_factory(None)

    assert (await call(app, "POST", "/")).status == 200
    assert observer.names() == ["first half", "second half"]


@placed
async def test_one_that_an_endpoint_has_left_open_is_stored(
    flavour: Flavour, observer: Observer, has_middleware: bool
) -> None:
    app = serve(flavour, has_middleware=has_middleware)

    @app.post("/")
    async def create() -> None:
        session: AsyncSession = flavour.db.current
        await session.begin_nested()
        await session.run_sync(add_item)

    assert (await call(app, "POST", "/")).status == 200
    assert observer.names() == ["one"]


async def test_one_of_a_task_that_has_ended_is_stored(
    flavour: Flavour, observer: Observer
) -> None:
    app = serve(flavour)

    @app.post("/")
    async def create() -> None:
        session: AsyncSession = flavour.db.current

        async def leave_open() -> None:
            await session.begin_nested()
            await session.run_sync(add_item)

        await asyncio.create_task(leave_open())

    assert (await call(app, "POST", "/")).status == 200
    assert observer.names() == ["one"]


async def test_a_message_of_another_task_does_not_commit_half_of_it(
    flavour: Flavour, observer: Observer
) -> None:
    async def handle(websocket: WebSocket, message: str) -> None:
        session: AsyncSession = flavour.db.current
        unit = innermost()
        with suppress(LookupError):
            async with session.begin_nested():
                await session.run_sync(add_item)
                sending = asyncio.create_task(websocket.send_text("half"))
                await eventually(lambda: unit.is_ending)
                raise LookupError
        await sending

    async with Socket(serve_socket(flavour, handle), "/") as socket:
        assert await socket.ask("go") == "half"

    assert socket.error is None
    assert observer.names() == []
