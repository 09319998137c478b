"""Litestar, on every driver: its responses, streams, background tasks, WebSockets."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar import Litestar, Response, WebSocket, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency, Provide
from litestar.response import Stream
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from support.asgi import call
from support.flavours import Flavour, Observer, only
from support.models import add_item, names
from support.pool import check_pool_is_whole
from support.websocket import Socket
from unitwork import DBSessionMiddleware
from unitwork.testing import commit_faults

pytestmark = pytest.mark.anyio


def serve(flavour: Flavour, *handlers: Any) -> DBSessionMiddleware:
    return DBSessionMiddleware(Litestar([*handlers]), db=flavour.db)


async def add(flavour: Flavour, name: str = "one") -> None:
    await flavour.do(flavour.db.current, lambda session: add_item(session, name).id)


async def test_a_success_starts_after_its_commit(
    flavour: Flavour, observer: Observer
) -> None:
    seen: list[list[str]] = []

    @post("/")
    async def create() -> Response[None]:
        await add(flavour)
        task = BackgroundTask(lambda: seen.append(["task"]))
        return Response(None, background=task)

    def note(message: Any) -> None:
        seen.append(observer.names())

    reply = await call(serve(flavour, create), "POST", "/", on_message=note)

    assert (reply.status, reply.complete) == (201, True)
    assert seen == [["one"], ["one"], ["task"]]
    await check_pool_is_whole(flavour)


async def test_a_commit_that_fails_runs_no_background_task(
    flavour: Flavour, observer: Observer
) -> None:
    ran: list[str] = []

    @post("/")
    async def create() -> Response[None]:
        await add(flavour)
        return Response(None, background=BackgroundTask(ran.append, "task"))

    refused = IntegrityError("COMMIT", None, Exception("deferred"))
    with commit_faults(flavour.db, refused):
        reply = await call(serve(flavour, create), "POST", "/")

    assert reply.status in (None, 500)
    assert (ran, observer.names()) == ([], [])


async def test_a_stream_has_the_session(flavour: Flavour, observer: Observer) -> None:
    async def chunks() -> AsyncIterator[str]:
        yield "first"
        await add(flavour)
        yield "last"

    @get("/")
    async def stream() -> Stream:
        return Stream(chunks)

    complete = asyncio.Event()  # Litestar waits for the server to say so

    def note(message: Any) -> None:
        if not message.get("more_body", True):
            complete.set()

    app = serve(flavour, stream)
    reply = await call(app, "GET", "/", on_message=note, gone=complete)

    assert (reply.status, reply.body) == (200, b"firstlast")
    assert observer.names() == ["one"]


async def test_each_message_of_a_websocket_is_a_unit(flavour: Flavour) -> None:
    @websocket("/")
    async def receive(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        while True:
            await add(flavour, await socket.receive_text())
            await socket.send_text("stored")

    async with Socket(serve(flavour, receive), "/") as socket:
        socket.send("lamp")
        assert (await socket.receive())["text"] == "stored"
        assert await flavour.work(names) == ["lamp"]
        assert flavour.db.pool_status().checked_out == 0


@only("sqlite3", "psycopg")
async def test_a_sync_handler_has_a_sync_session(
    flavour: Flavour, observer: Observer
) -> None:
    @post("/", sync_to_thread=True)
    def create(session: NamedDependency[Session]) -> int:
        return add_item(session, "one").id

    dependencies = {"session": Provide(flavour.db.session)}
    application = Litestar([create], dependencies=dependencies)
    reply = await call(DBSessionMiddleware(application, db=flavour.db), "POST", "/")

    assert (reply.status, observer.names()) == (201, ["one"])
