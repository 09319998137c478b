"""The application's life: check at the start, drain and dispose at the end, again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from threading import enumerate as threads
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, event, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from conftest import ASYNC, only
from support.asgi import ASGIApp, Message, call
from support.flavours import Flavour, Observer
from support.holding import holding, running
from support.models import add_item, names
from support.pool import eventually
from unitwork import AsyncDatabase, Database, DatabaseSettings, DBSessionMiddleware

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


async def test_the_end_does_not_wait_for_ever(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    hasty = flavour.another(settings=DatabaseSettings(drain_timeout=0.05))
    app = serve(hasty)
    entered, leave = asyncio.Event(), asyncio.Event()

    @app.get("/slow/")
    async def endpoint() -> None:
        assert hasty.db.current is not None
        entered.set()
        await leave.wait()

    life = Life(app)
    await life.start()
    async with running(call(app, "GET", "/slow/")) as request:
        await entered.wait()
        answer = await life.stop()
        leave.set()
        await request

    assert answer == {"type": "lifespan.shutdown.complete"}
    assert "1 units of database 'default' were still open" in caplog.text


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


# Applications of other kinds


async def test_an_application_that_knows_no_lifespan_is_left_alone(
    flavour: Flavour,
) -> None:
    class Unknown(Exception):
        pass

    async def app(scope: Message, receive: Any, send: Any) -> None:
        raise Unknown

    life = Life(DBSessionMiddleware(app, flavour.db))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(life.start(), 0.05)
    with pytest.raises(Unknown):
        await life.ended()


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
