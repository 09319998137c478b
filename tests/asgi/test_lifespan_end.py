"""The end of the application's life: units are drained, engines disposed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import BackgroundTasks, HTTPException, WebSocket
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from support.asgi import Reply, call
from support.databases import check_nothing_is_left
from support.flavours import Flavour, Observer
from support.holding import holding, running
from support.lifespan import Life, block, serve
from support.models import add_item
from support.pool import eventually
from support.websocket import Socket
from unitwork import (
    AsyncDatabase,
    Database,
    DatabaseSettings,
    SessionEndedError,
    UnexpectedRollbackError,
    UsageError,
    current_unit,
)
from unitwork._unit.database_base import core_of

pytestmark = pytest.mark.anyio


async def test_idle_connections_are_closed_at_the_end(
    flavour: Flavour, observer: Observer
) -> None:
    life = Life(app := serve(flavour))
    await life.start()
    assert (await call(app, "POST", "/one")).status == 200
    assert flavour.db.pool_status().idle == 1

    await life.stop()

    assert flavour.db.pool_status().idle == 0
    assert observer.names() == ["one"]


async def test_the_end_waits_for_requests_that_are_under_way(
    flavour: Flavour, observer: Observer
) -> None:
    with holding(flavour) as hold:
        app = serve(flavour)

        def write_held(session: Any) -> None:
            add_item(session)
            hold.execute(session)

        app.post("/held/")(flavour.endpoint(write_held))
        life = Life(app)
        await life.start()
        async with (
            running(call(app, "POST", "/held/")) as request,
            running(life.stop()) as stopping,
        ):
            await hold.reached()
            await eventually(lambda: core_of(flavour.db).open_units.are_awaited)
            hold.release()
            reply = await request
            answer = await stopping

    assert reply.status == 200
    assert answer == {"type": "lifespan.shutdown.complete"}
    assert observer.names() == ["one"]
    assert flavour.db.pool_status()[1:] == (0, 0, 0)


@pytest.fixture
async def hasty(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database, with little time for what is open at the end."""
    settings = DatabaseSettings(drain_timeout=0.02, end_timeout=0.2)
    hasty = flavour.another(settings=settings)
    yield hasty
    await check_nothing_is_left(hasty)
    await hasty.dispose()


class Hanging:
    """An application whose request, or task in the background, waits for `leave`."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.written, self.leave = asyncio.Event(), asyncio.Event()
        self.app = serve(flavour)
        self.app.post("/request/")(self.request)
        self.app.post("/task/")(self.order)

    async def request(self) -> None:
        await self.write(self.flavour.db.current)
        await self.leave.wait()

    async def write(self, session: Any) -> None:
        await self.flavour.do(session, lambda session: add_item(session).id)
        self.written.set()

    async def order(self, tasks: BackgroundTasks) -> None:
        tasks.add_task(self.work)

    async def work(self) -> None:
        async with block(self.flavour) as session:
            await self.write(session)
            await self.leave.wait()

    async def shut_down_during(self, path: str) -> Reply:
        life = Life(self.app)
        await life.start()
        async with running(call(self.app, "POST", path)) as request:
            await self.written.wait()
            answer = await life.stop()
            assert answer == {"type": "lifespan.shutdown.complete"}
            assert self.flavour.db.pool_status()[1:] == (0, 0, 0)
            self.leave.set()
            reply: Reply = await request
        return reply


async def test_a_request_that_outlives_the_end_is_rolled_back_and_told_so(
    hasty: Flavour, observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await Hanging(hasty).shut_down_during("/request/")

    assert (reply.status, reply.complete, observer.names()) == (500, True, [])
    assert isinstance(reply.error, UnexpectedRollbackError)
    assert "the application shut down before" in str(reply.error)
    assert "1 units of database 'default' were still open" in caplog.text


async def test_a_block_that_outlives_the_end_is_rolled_back_and_told_so(
    hasty: Flavour, observer: Observer
) -> None:
    reply = await Hanging(hasty).shut_down_during("/task/")

    assert (reply.status, observer.names()) == (200, [])
    assert isinstance(reply.error, UnexpectedRollbackError)
    assert "the application shut down before" in str(reply.error)


async def test_a_statement_that_outlives_the_end_is_broken_off(
    hasty: Flavour, observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = Hanging(hasty)
    with holding(hasty) as hold:

        def write_held(session: Any) -> None:
            add_item(session)
            hold.execute(session)

        hanging.app.post("/held/")(hasty.endpoint(write_held))
        life = Life(hanging.app)
        await life.start()
        async with running(call(hanging.app, "POST", "/held/")) as request:
            await hold.reached()
            await life.stop()
            reply = await request

    assert (reply.status, observer.names()) == (500, [])
    await eventually(lambda: hasty.db.pool_status().checked_out == 0)
    assert "AttributeError" not in caplog.text


@pytest.mark.parametrize("path", ["/request/", "/stream/"])
async def test_a_commit_that_is_under_way_at_the_end_is_not_torn_in_two(
    flavour: Flavour,
    observer: Observer,
    caplog: pytest.LogCaptureFixture,
    path: str,
) -> None:
    hasty = flavour.another(settings=DatabaseSettings(drain_timeout=0.02))
    app = serve(hasty)
    checking, leave = asyncio.Event(), asyncio.Event()
    called: list[str] = []

    async def check() -> None:
        checking.set()
        await leave.wait()

    @app.post(path)
    async def write() -> Response:
        await hasty.do(hasty.db.current, lambda session: add_item(session).id)
        current_unit().before_commit(check)
        current_unit().on_commit(called.append, "commit")
        current_unit().on_rollback(called.append, "rollback")
        return {"/stream/": StreamingResponse}.get(path, Response)("done")

    life = Life(app)
    await life.start()
    async with running(call(app, "POST", path)) as request:
        await checking.wait()
        async with running(life.stop()) as stopping:
            await eventually(lambda: "were still open" in caplog.text)
            leave.set()
            await stopping
        reply = await request

    assert (reply.status, reply.complete, reply.error) == (200, True, None)
    assert (observer.names(), called) == (["one"], ["commit"])
    await hasty.dispose()


async def test_a_hook_that_outlives_the_end_costs_the_work(
    hasty: Flavour, observer: Observer
) -> None:
    hanging = Hanging(hasty)

    @hanging.app.post("/hook/")
    async def register() -> None:
        current_unit().before_commit(hanging.leave.wait)
        await hanging.write(hasty.db.current)

    reply = await hanging.shut_down_during("/hook/")

    assert (reply.status, observer.names()) == (500, [])
    assert isinstance(reply.error, UsageError)
    assert "more than 0.2 seconds (end_timeout)" in str(reply.error)


async def test_a_session_refuses_after_the_end(
    hasty: Flavour, observer: Observer
) -> None:
    hanging = Hanging(hasty)
    refused: list[str] = []

    @hanging.app.post("/again/")
    async def write_again() -> None:
        session = hasty.db.current
        await hanging.write(session)
        await hanging.leave.wait()
        with pytest.raises(SessionEndedError) as caught:
            await hanging.write(session)
        refused.append(str(caught.value))

    reply = await hanging.shut_down_during("/again/")

    assert "rolled back: the application shut down" in refused[0]
    assert (reply.status, observer.names()) == (500, [])


async def test_hooks_hear_that_the_end_has_rolled_back(
    hasty: Flavour, observer: Observer
) -> None:
    hanging = Hanging(hasty)
    called: list[str] = []

    @hanging.app.post("/hooks/")
    async def register() -> None:
        current_unit().on_commit(called.append, "commit")
        current_unit().on_rollback(called.append, "rollback")
        await hanging.request()

    reply = await hanging.shut_down_during("/hooks/")

    assert (reply.status, called) == (500, ["rollback"])


async def test_a_stream_that_outlives_the_end_is_cut_short(
    hasty: Flavour, observer: Observer
) -> None:
    hanging = Hanging(hasty)

    @hanging.app.post("/stream/")
    async def stream() -> StreamingResponse:
        session = hasty.db.current

        async def chunks() -> AsyncIterator[str]:
            yield "first"
            await hanging.write(session)
            await hanging.leave.wait()
            yield "last"

        return StreamingResponse(chunks())

    reply = await hanging.shut_down_during("/stream/")

    assert (reply.complete, observer.names()) == (False, [])
    assert isinstance(reply.error, UnexpectedRollbackError)


async def test_a_message_that_outlives_the_end_is_rolled_back_and_told_so(
    hasty: Flavour, observer: Observer
) -> None:
    hanging = Hanging(hasty)

    @hanging.app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await hanging.request()
        await websocket.send_text("stored")

    life = Life(hanging.app)
    await life.start()
    async with Socket(hanging.app, "/") as socket:
        await hanging.written.wait()
        await life.stop()
        hanging.leave.set()
        await socket.ended()

    assert isinstance(socket.error, UnexpectedRollbackError)
    assert observer.names() == []


async def test_a_request_that_has_failed_anyway_keeps_its_answer(
    hasty: Flavour, observer: Observer
) -> None:
    hanging = Hanging(hasty)

    @hanging.app.post("/teapot/")
    async def fail() -> None:
        await hanging.request()
        raise HTTPException(418)

    reply = await hanging.shut_down_during("/teapot/")

    assert (reply.status, reply.complete, reply.error) == (418, True, None)
    assert observer.names() == []


async def test_an_engine_of_the_users_own_stays_open(flavour: Flavour) -> None:
    engine: Any = ENGINES[flavour.is_async](flavour.url)
    kind: Any = (Database, AsyncDatabase)[flavour.is_async]
    own = Flavour(flavour.name, flavour.url, kind(engine))
    life = Life(app := serve(own))
    await life.start()
    await call(app, "GET", "/")

    await life.stop()

    assert own.db.pool_status().idle == 1
    await own.dispose()


ENGINES: list[Callable[[str], Any]] = [create_engine, create_async_engine]
