"""Savepoints of `begin_nested()` that are still open when their unit ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from anyio import move_on_after
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware

from support.asgi import call
from support.flavours import ASYNC, Flavour, Observer, only
from support.models import Item, add_item
from support.pool import eventually
from support.sockets import fastapi
from support.sockets import serve as serve_socket
from support.websocket import Socket
from unitwork import (
    DBSessionMiddleware,
    UnexpectedRollbackError,
    UsageError,
    current_unit,
)
from unitwork._unit.context import innermost

pytestmark = [pytest.mark.anyio, only(*ASYNC)]

placed = pytest.mark.parametrize("has_middleware", [False, True])
"""Whether the endpoint runs in another task than the one that ends its unit."""


def pass_on(request: Request, call_next: Callable[[Request], Any]) -> Any:
    return call_next(request)


def serve(flavour: Flavour, *, has_middleware: bool = False) -> FastAPI:
    app = FastAPI()
    if has_middleware:
        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
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


async def test_one_that_a_listener_begins_in_the_flush_of_commit_is_stored(
    flavour: Flavour, observer: Observer
) -> None:
    def begin(session: Session, *args: object) -> None:
        if not session.in_nested_transaction():
            session.begin_nested()

    async with flavour.db.transaction() as session:
        session.add(Item(name="one"))
        event.listen(session.sync_session, "before_flush", begin)

    assert observer.names() == ["one"]


@pytest.mark.parametrize("nested", ["begin_nested", "savepoint"])
@pytest.mark.parametrize("ends_well", [False, True])
async def test_a_block_in_a_scope_of_anyio_that_is_cancelled(
    flavour: Flavour, observer: Observer, nested: str, ends_well: bool
) -> None:
    async with flavour.db.transaction() as session:
        blocks = {"begin_nested": session.begin_nested}
        begin = blocks.get(nested, lambda: flavour.db.transaction(nested=nested))
        await session.run_sync(add_item)
        with move_on_after(10) as scope:
            async with begin():
                await session.run_sync(add_item, "inside")
                scope.cancel()
                if not ends_well:
                    await asyncio.Event().wait()
        await session.run_sync(add_item, "two")

    assert observer.names() == ["one", "inside", "two"] if ends_well else ["one", "two"]


# Tasks of the application


async def fail_in_savepoint(session: AsyncSession, name: str) -> None:
    with suppress(LookupError):
        async with session.begin_nested():
            await session.run_sync(add_item, name)
            await asyncio.sleep(0)
            raise LookupError


async def test_the_unit_waits_again_for_one_that_follows(
    flavour: Flavour, observer: Observer
) -> None:
    app, tasks = serve(flavour), set[asyncio.Task[None]]()

    async def work(session: AsyncSession, begun: asyncio.Event) -> None:
        unit = innermost()
        async with session.begin_nested():
            await session.run_sync(add_item)
            begun.set()
            await eventually(lambda: unit.is_ending)
        for name in ("two", "three"):
            await fail_in_savepoint(session, name)

    @app.post("/")
    async def create() -> None:
        begun = asyncio.Event()
        tasks.add(asyncio.create_task(work(flavour.db.current, begun)))
        await begun.wait()

    assert (await call(app, "POST", "/")).status == 200
    assert observer.names() == ["one"]


async def test_one_that_begins_in_the_flush_of_commit_loses_the_unit(
    flavour: Flavour, observer: Observer
) -> None:
    begun: list[asyncio.Task[None]] = []

    async def work() -> None:
        async with flavour.db.transaction() as session:
            await session.run_sync(add_item)

            async def hook() -> None:
                begun.append(asyncio.create_task(fail_late(session)))
                await is_open.wait()

            current_unit().before_commit(hook)

    is_open, go_on = asyncio.Event(), asyncio.Event()

    async def fail_late(session: AsyncSession) -> None:
        async with session.begin_nested():
            is_open.set()
            await go_on.wait()

    with pytest.raises(UnexpectedRollbackError, match="just before its COMMIT"):
        await work()
    go_on.set()
    await asyncio.gather(*begun, return_exceptions=True)
    assert observer.names() == []


async def test_a_commit_by_hand_beside_one_is_refused(
    flavour: Flavour, observer: Observer
) -> None:
    is_open, tasks = asyncio.Event(), list[asyncio.Task[None]]()

    async def hold(session: AsyncSession) -> None:
        async with session.begin_nested():
            await session.run_sync(add_item, "half")
            is_open.set()
            await asyncio.Event().wait()

    async def work() -> None:
        async with flavour.db.transaction() as session:
            tasks.append(asyncio.create_task(hold(session)))
            await is_open.wait()
            await session.commit()

    with pytest.raises(UsageError, match=r"session\.commit\(\) would store half"):
        await work()
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert observer.names() == []


@pytest.mark.parametrize("ends", ["returns", "is cancelled"])
async def test_a_task_that_ends_with_one_open_is_waited_for(
    flavour: Flavour, observer: Observer, ends: str
) -> None:
    app, tasks = serve(flavour), list[asyncio.Task[None]]()

    async def leave_open(session: AsyncSession, begun: asyncio.Event) -> None:
        unit = innermost()
        await session.begin_nested()
        await session.run_sync(add_item)
        begun.set()
        await eventually(lambda: unit.is_ending)
        if ends == "is cancelled":
            tasks[0].cancel()
            await asyncio.sleep(0)

    @app.post("/")
    async def create() -> None:
        begun = asyncio.Event()
        tasks.append(asyncio.create_task(leave_open(flavour.db.current, begun)))
        await begun.wait()

    assert (await call(app, "POST", "/")).status == 200
    assert observer.names() == ["one"]


# Around the application


class InSavepoint:
    """An ASGI middleware that calls the application inside a savepoint."""

    def __init__(self, app: Any, flavour: Flavour) -> None:
        self._app = app
        self._flavour = flavour

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with self._flavour.db.current.begin_nested():
            await self._app(scope, receive, send)


@placed
async def test_one_that_a_middleware_holds_open_is_stored(
    flavour: Flavour, observer: Observer, has_middleware: bool
) -> None:
    app = FastAPI()
    app.add_middleware(InSavepoint, flavour=flavour)
    if has_middleware:
        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def create() -> StreamingResponse:
        await flavour.db.current.run_sync(add_item)
        return StreamingResponse(iter([b"x"]))

    reply = await call(app, "POST", "/", spec_version="2.3")

    assert (reply.status, reply.complete) == (200, True)
    assert observer.names() == ["one"]


async def test_a_websocket_may_be_read_by_another_task_meanwhile(
    flavour: Flavour, observer: Observer
) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        session: AsyncSession = flavour.db.current
        async with session.begin_nested():
            await session.run_sync(add_item)
            unit = innermost()
            reading = asyncio.create_task(websocket.receive_text())
            await eventually(lambda: unit.is_ending)
            await websocket.send_text("working")
        await websocket.send_text(await reading)

    async with Socket(fastapi(flavour, endpoint), "/") as socket:
        assert (await socket.receive())["text"] == "working"
        assert await socket.ask("next") == "next"

    assert socket.error is None
    assert observer.names() == ["one"]


@pytest.mark.parametrize("nested", ["begin_nested", "join", "savepoint"])
@pytest.mark.parametrize("waits", [asyncio.create_task, asyncio.gather])
async def test_a_message_of_a_task_that_the_block_awaits_is_not_held_back(
    flavour: Flavour, observer: Observer, nested: str, waits: Callable[..., Any]
) -> None:
    async def handle(websocket: WebSocket, message: str) -> None:
        session: AsyncSession = flavour.db.current
        blocks = {"begin_nested": session.begin_nested}
        begin = blocks.get(nested, lambda: flavour.db.transaction(nested=nested))
        async with begin():
            await session.run_sync(add_item)
            await waits(websocket.send_text("stored"))
            assert observer.names() == ["one"]
        await websocket.send_text("done")

    async with Socket(serve_socket(flavour, handle), "/") as socket:
        assert await socket.ask("go") == "stored"
        assert (await socket.receive())["text"] == "done"

    assert socket.error is None
