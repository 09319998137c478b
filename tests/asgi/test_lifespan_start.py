"""The start of the application's life: databases are checked, if asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import enumerate as threads
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import event, make_url

from support.asgi import Message, call
from support.flavours import Flavour, Observer
from support.lifespan import Life, live, serve
from support.models import add_item, names
from support.pool import eventually
from unitwork import DatabaseSettings, DatabaseUnavailableError, DBSessionMiddleware

pytestmark = pytest.mark.anyio


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
    with pytest.raises(DatabaseUnavailableError) as caught:
        await life.ended()

    assert answer["type"] == "lifespan.startup.failed"
    assert answer["message"] == str(caught.value)
    assert answer["message"].startswith("database 'default' (")
    assert ") can't be reached: " in answer["message"]
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
    with pytest.raises(DatabaseUnavailableError):
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
