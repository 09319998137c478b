"""The application's life: check at the start, drain and dispose at the end, again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from threading import enumerate as threads
from typing import Any

import pytest
from anyio import to_thread
from fastapi import BackgroundTasks, FastAPI, HTTPException, WebSocket
from fastapi.responses import Response, StreamingResponse
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, event, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from support.asgi import ASGIApp, Message, Reply, call
from support.databases import check_nothing_is_left
from support.flavours import ASYNC, Flavour, Observer, only
from support.holding import holding, running
from support.models import add_item, names
from support.pool import eventually
from support.websocket import Socket
from unitwork import (
    AsyncDatabase,
    Database,
    DatabaseSettings,
    DBSessionMiddleware,
    SessionEndedError,
    UnexpectedRollbackError,
    current_unit,
)

pytestmark = pytest.mark.anyio


def serve(flavour: Flavour, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.get("/")(flavour.endpoint(names))
    app.post("/{name}")(flavour.endpoint(lambda session: add_item(session).id))
    return app


class Life:
    """One lifespan of an application, as a server sees it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._to_server: asyncio.Queue[Message] = asyncio.Queue()

    async def start(self) -> Message:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._task = asyncio.create_task(
            self._app(scope, self._to_app.get, self._to_server.put)
        )
        self._to_app.put_nowait({"type": "lifespan.startup"})
        return await self._answer()

    async def stop(self) -> Message:
        self._to_app.put_nowait({"type": "lifespan.shutdown"})
        return await self._answer()

    async def _answer(self) -> Message:
        async with asyncio.timeout(10):
            return await self._to_server.get()

    async def ended(self) -> None:
        await self._task


async def live(app: ASGIApp) -> None:
    life = Life(app)
    assert await life.start() == {"type": "lifespan.startup.complete"}
    assert await life.stop() == {"type": "lifespan.shutdown.complete"}
    await life.ended()


# Start


async def test_starts_without_a_look_at_the_database(flavour: Flavour) -> None:
    await live(serve(flavour))

    assert flavour.db.pool_status()[1:] == (0, 0, 0)


async def test_starts_when_the_database_answers(flavour: Flavour) -> None:
    careful = flavour.another(settings=DatabaseSettings(check_at_startup=True))
    connected: list[Any] = []
    event.listen(careful.sync_engine, "connect", lambda *args: connected.append(args))

    await live(serve(careful))

    assert len(connected) == 1


def out_of_reach(flavour: Flavour) -> Flavour:
    """A database of the same kind that is not there."""
    url = make_url(flavour.url)
    options = {"sqlite": {"database": "/no/such/folder/test.db"}}
    url = url.set(**options.get(url.get_backend_name(), {"port": 1}))
    gone = Flavour(flavour.name, url.render_as_string(False), flavour.db)
    return gone.another(settings=DatabaseSettings(check_at_startup=True))


async def test_does_not_start_when_the_database_does_not_answer(
    flavour: Flavour,
) -> None:
    entered: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        entered.append("start")
        yield
        entered.append("stop")

    life = Life(serve(out_of_reach(flavour), lifespan=lifespan))
    answer = await life.start()
    await life.ended()

    assert answer["type"] == "lifespan.startup.failed"
    assert answer["message"].startswith("database 'default' can't be reached: ")
    assert entered == []
    # aiosqlite's thread has a last word for the event loop.
    await eventually(lambda: "_connection_worker_thread" not in str(threads()))


async def test_the_lifespan_of_the_application_may_use_the_database(
    flavour: Flavour, observer: Observer
) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await flavour.work(lambda session: add_item(session, "start").id)
        yield
        await flavour.work(lambda session: add_item(session, "stop").id)

    await live(serve(flavour, lifespan=lifespan))

    assert observer.names() == ["start", "stop"]
    assert flavour.db.pool_status().idle == 0


# End


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
            await eventually(lambda: flavour.db._source._drained is not None)
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


@asynccontextmanager
async def block(flavour: Flavour) -> AsyncIterator[Any]:
    """A `transaction()` block of either colour, for a body with awaits."""
    made = flavour.db.transaction()
    if flavour.is_async:
        async with made as session:
            yield session
        return
    session = await to_thread.run_sync(made.__enter__)
    yield session
    await to_thread.run_sync(made.__exit__, None, None, None)


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
    assert isinstance(reply.error, UnexpectedRollbackError)


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


# Again


async def test_it_lives_again(flavour: Flavour, observer: Observer) -> None:
    app = serve(flavour)
    for _ in range(3):
        life = Life(app)
        await life.start()
        assert (await call(app, "GET", "/")).status == 200
        await life.stop()

    assert flavour.db.pool_status()[1:] == (0, 0, 0)
    assert observer.in_transaction() == []


async def test_after_the_end_the_database_can_be_used(flavour: Flavour) -> None:
    app = serve(flavour)
    await live(app)

    assert (await call(app, "GET", "/")).status == 200


def test_each_test_client_has_an_event_loop_of_its_own(
    flavour: Flavour, observer: Observer
) -> None:
    app = serve(flavour)
    for _ in range(3):
        with TestClient(app) as client:
            assert client.get("/").status_code == 200
            assert client.get("/").status_code == 200

    assert flavour.db.pool_status()[1:] == (0, 0, 0)


def test_a_test_client_without_a_lifespan_has_one_for_each_request(
    flavour: Flavour, observer: Observer
) -> None:
    client = TestClient(serve(flavour))

    answers = [client.get("/").status_code for _ in range(4)]

    assert answers == [200] * 4
    assert flavour.db.pool_status().checked_out == 0


@only(*ASYNC, "asyncmy")
def test_a_database_serves_one_event_loop_after_the_other(
    flavour: Flavour, observer: Observer
) -> None:
    async def add(name: str) -> None:
        await flavour.work(lambda session: add_item(session, name).id)

    asyncio.run(add("one"))
    asyncio.run(add("two"))

    assert observer.names() == ["one", "two"]
    assert flavour.db.pool_status().checked_out == 0


def given_an_engine(flavour: Flavour) -> Flavour:
    engine = create_async_engine(flavour.url, pool_size=1, max_overflow=0)
    return Flavour(flavour.name, flavour.url, AsyncDatabase(engine))


def given_a_url(flavour: Flavour) -> Flavour:
    return flavour.another(pool_size=1, max_overflow=0)


@only(*ASYNC, "asyncmy")
@pytest.mark.parametrize("given", [given_an_engine, given_a_url])
def test_a_pool_that_was_used_up_in_one_event_loop_serves_the_next(
    flavour: Flavour, given: Callable[[Flavour], Flavour]
) -> None:
    narrow = given(flavour)

    async def crowd() -> None:
        await asyncio.gather(*(narrow.work(names) for _ in range(3)))

    for _ in range(3):
        asyncio.run(crowd())
        assert narrow.db.pool_status() == (1, 0, 1, 0)
    asyncio.run(narrow.dispose())


@only(*ASYNC)
@pytest.mark.parametrize("given", [given_an_engine, given_a_url])
def test_a_pool_that_was_used_up_in_one_test_client_serves_the_next(
    flavour: Flavour, given: Callable[[Flavour], Flavour]
) -> None:
    narrow = given(flavour)
    app = serve(narrow)

    @app.get("/crowd/")
    async def crowd() -> None:
        await asyncio.gather(*(narrow.work(names) for _ in range(3)))

    for _ in range(3):
        with TestClient(app) as client:
            assert client.get("/crowd/").status_code == 200
    asyncio.run(narrow.dispose())


@only(*ASYNC)
async def test_databases_that_share_an_engine_wait_in_one_queue(
    flavour: Flavour,
) -> None:
    one = given_an_engine(flavour)
    two = Flavour(flavour.name, flavour.url, AsyncDatabase(one.db.engine))
    async with block(one) as session:
        await one.do(session, names)
        async with running(one.work(names), Context()) as waits:
            await eventually(lambda: len(queue_of(one)._getters) == 1)
            async with running(two.work(names), Context()) as also_waits:
                await eventually(lambda: len(queue_of(two)._getters) == 2)
                await session.rollback()
                assert await asyncio.gather(waits, also_waits) == [[], []]
    await one.dispose()


def queue_of(flavour: Flavour) -> Any:
    return flavour.sync_engine.pool._pool._queue  # type: ignore[attr-defined]  # a test may


# Applications of other kinds


class Bare:
    """An ASGI application without a framework, and what it does with a lifespan."""

    def __init__(self, flavour: Flavour) -> None:
        self._flavour = flavour
        self.served = DBSessionMiddleware(self, flavour.db)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        await self._flavour.do(self._flavour.db.current, names)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def live(self, receive: Any, send: Any) -> None:
        raise NotImplementedError


class Refuses(Bare):
    async def live(self, receive: Any, send: Any) -> None:
        raise LookupError("no lifespan here")


class Returns(Bare):
    async def live(self, receive: Any, send: Any) -> None:
        pass


class ReturnsLater(Bare):
    async def live(self, receive: Any, send: Any) -> None:
        await receive()


class ReturnsOnceStarted(Bare):
    async def live(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})


BARE = pytest.mark.parametrize(
    "kind", [Refuses, Returns, ReturnsLater, ReturnsOnceStarted]
)


@BARE
async def test_an_application_that_knows_no_lifespan_is_given_one(
    flavour: Flavour, kind: type[Bare]
) -> None:
    app = kind(flavour).served
    life = Life(app)
    assert await life.start() == {"type": "lifespan.startup.complete"}
    assert (await call(app, "GET", "/")).status == 200
    assert flavour.db.pool_status().idle == 1

    assert await life.stop() == {"type": "lifespan.shutdown.complete"}
    await life.ended()

    assert flavour.db.pool_status().idle == 0


@BARE
async def test_an_application_that_knows_no_lifespan_needs_its_database_too(
    flavour: Flavour, kind: type[Bare]
) -> None:
    life = Life(kind(out_of_reach(flavour)).served)
    answer = await life.start()
    await life.ended()

    assert answer["type"] == "lifespan.startup.failed"
    await eventually(lambda: "_connection_worker_thread" not in str(threads()))


class FailsToStart(Bare):
    async def live(self, receive: Any, send: Any) -> None:
        await receive()
        await self._flavour.work(names)
        raise LookupError("no luck")


async def test_an_error_in_a_lifespan_is_no_lack_of_one(flavour: Flavour) -> None:
    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    with pytest.raises(LookupError):
        await FailsToStart(flavour).served({"type": "lifespan"}, receive, send)

    assert flavour.db.pool_status().idle == 0


async def test_what_a_start_that_failed_has_opened_is_closed(flavour: Flavour) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await flavour.work(names)
        raise LookupError
        yield

    life = Life(serve(flavour, lifespan=lifespan))
    answer = await life.start()
    with pytest.raises(LookupError):
        await life.ended()

    assert answer["type"] == "lifespan.startup.failed"
    assert flavour.db.pool_status().idle == 0


async def test_several_databases_are_checked_and_closed(
    flavour: Flavour, observer: Observer
) -> None:
    other = flavour.another(name="other", settings=DatabaseSettings())
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=[flavour.db, other.db])
    app.get("/")(other.endpoint(names))
    life = Life(app)
    await life.start()
    assert (await call(app, "GET", "/")).status == 200
    assert other.db.pool_status().idle == 1

    await life.stop()

    assert other.db.pool_status().idle == 0
