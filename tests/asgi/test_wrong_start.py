"""Wrong configuration stops the start, with one message, whatever the server is."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypercorn.utils import LifespanFailureError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from support.servers import listen
from unitwork import (
    AsyncDatabase,
    Database,
    DatabaseSettings,
    DatabaseUnavailableError,
    DBSessionMiddleware,
    UsageError,
)

pytestmark = pytest.mark.anyio

MEMORY = "sqlite+aiosqlite://"
Start = Callable[[Any, pytest.LogCaptureFixture], Awaitable[str]]


# The servers: each returns what it says


async def in_uvicorn(app: Any, caplog: pytest.LogCaptureFixture) -> str:
    caplog.set_level(logging.INFO, "uvicorn.error")
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    with listen() as listening, pytest.raises(SystemExit):
        async with asyncio.timeout(10):
            await server._serve([listening])
    message, end = [x.message for x in caplog.records if x.levelno == logging.ERROR]
    assert end == "Application startup failed. Exiting."
    return message


async def in_hypercorn(app: Any, caplog: pytest.LogCaptureFixture) -> str:
    config = hypercorn.config.Config()
    config.bind, config.errorlog = ["127.0.0.1:0"], None
    with pytest.raises(LifespanFailureError) as caught:
        async with asyncio.timeout(10):
            await hypercorn.asyncio.serve(app, config)
    return str(caught.value)


async def in_test_client(app: Any, caplog: pytest.LogCaptureFixture) -> str:
    def enter() -> None:
        with TestClient(app):
            raise AssertionError("it has started")

    with pytest.raises((UsageError, DatabaseUnavailableError)) as caught:
        await asyncio.to_thread(enter)
    return str(caught.value)


async def at_the_first_request(app: Any, caplog: pytest.LogCaptureFixture) -> str:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        for _ in range(2):
            with pytest.raises(UsageError) as caught:
                await client.get("/")
    return str(caught.value)


START: list[Any] = [in_uvicorn, in_hypercorn, in_test_client]
EVERY: list[Any] = [*START, at_the_first_request]


# The mistakes: each makes an application


def adding(*args: Any, **options: Any) -> Callable[[], Any]:
    def make() -> FastAPI:
        app = FastAPI()
        app.add_middleware(DBSessionMiddleware, *args, **options)  # type: ignore[arg-type]
        return app

    return make


def two_of_one_name() -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=AsyncDatabase(MEMORY))
    app.add_middleware(DBSessionMiddleware, db=Database("sqlite://"))
    return app


def mounted(inner: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=AsyncDatabase(MEMORY))
    app.mount("/", inner)
    return app


def mounted_with_the_same_name() -> FastAPI:
    return mounted(adding(db=AsyncDatabase(MEMORY))())


def mounted_directly() -> FastAPI:
    return mounted(DBSessionMiddleware(FastAPI(), db=AsyncDatabase(MEMORY)))


def mounted_twice() -> Starlette:
    inner = adding(db=AsyncDatabase(MEMORY))()
    routes = [Mount("/", Starlette(routes=[Mount("/", inner)]))]
    one = Middleware(DBSessionMiddleware, db=AsyncDatabase(MEMORY))
    return Starlette(routes=routes, middleware=[one])


def mounted_without_a_database() -> FastAPI:
    return mounted(adding()())


def in_two_modules() -> Any:
    return DBSessionMiddleware(two_of_one_name(), AsyncDatabase(MEMORY, name="third"))


MISTAKES = {
    "no db": (adding(), r"missing a required argument: 'db'; write `app\.add_middl"),
    "db=None": (adding(db=None), "db is None; give a Database or"),
    "no database in it": (adding(db=[]), "db is empty; give at least one"),
    "db_url": (
        adding(db_url=MEMORY),
        "no argument 'db_url': in its place write db=url",
    ),
    "database": (adding(database=MEMORY), "in its place write db=db"),
    "sessionmaker": (adding(sessionmaker=MEMORY), "in its place write db=sessionmaker"),
    "engine_args": (
        adding(db=MEMORY, engine_args={}),
        r"write db=Database\(url, pool_",
    ),
    "a slip": (adding(db=MEMORY, comit_when=bool), "did you mean 'commit_when'"),
    "what it has": (adding(db=MEMORY, x=1), "no argument 'x'; it has db, commit_when"),
    "too many": (adding(MEMORY, MEMORY), "too many positional arguments; write"),
    "the wrong policy": (adding(db=MEMORY, commit_when=1), "commit_when must be call"),
    "postgres://": (adding(db="postgres://h/d"), "'postgres'; write postgresql"),
    "two slashes": (
        adding(db="sqlite+aiosqlite://items.db"),
        r"three slashes and a file \(sqlite\+aiosqlite:///items\.db\), or four",
    ),
    "no driver": (
        adding(db="postgresql+pg8000://h/d"),
        "needs the package 'pg8000', which is not installed: pip install pg8000",
    ),
    "one name": (two_of_one_name, "two databases are named 'default'; give each its"),
    "one name, around": (in_two_modules, "two databases are named 'default'; give"),
}
MOUNTED = {
    "the same name": (mounted_with_the_same_name, "two databases are named 'default'"),
    "directly": (mounted_directly, "two databases are named 'default'"),
    "in a mounted one": (mounted_twice, "two databases are named 'default'"),
    "no db": (mounted_without_a_database, "missing a required argument: 'db'"),
}


@pytest.mark.parametrize("start", EVERY)
@pytest.mark.parametrize("name", MISTAKES)
async def test_a_mistake_stops_the_start(
    caplog: pytest.LogCaptureFixture, start: Start, name: str
) -> None:
    make, expected = MISTAKES[name]

    assert re.search(expected, await start(make(), caplog))


@pytest.mark.parametrize("start", EVERY)
@pytest.mark.parametrize("name", MOUNTED)
async def test_a_mistake_in_a_mounted_application_stops_the_start(
    caplog: pytest.LogCaptureFixture, start: Start, name: str
) -> None:
    make, expected = MOUNTED[name]

    assert re.search(expected, await start(make(), caplog))


@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize("db", [Database, AsyncDatabase])
async def test_a_database_that_is_down_stops_the_start(
    caplog: pytest.LogCaptureFixture, start: Start, db: Any
) -> None:
    url = "postgresql+psycopg://me:s3cret@127.0.0.1:1/items"
    down = db(url, settings=DatabaseSettings(check_at_startup=True))

    message = await start(adding(db=down)(), caplog)

    assert "database 'default' (postgresql+psycopg at 127.0.0.1:1, " in message
    assert "can't be reached" in message
    assert "s3cret" not in message


@pytest.mark.parametrize("name", ["no db", "db_url", "a slip", "postgres://"])
def test_outside_of_an_event_loop_it_is_raised_at_once(name: str) -> None:
    make, expected = MISTAKES[name]
    (given,) = make().user_middleware

    with pytest.raises(UsageError, match=expected):
        given.cls(FastAPI(), *given.args, **given.kwargs)


async def test_a_mounted_application_may_share_the_database() -> None:
    db = AsyncDatabase(MEMORY)
    app = adding(db=db)()
    app.mount("/", adding(db=db)())

    async with app.router.lifespan_context(app):
        pass
    with TestClient(app):
        pass


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        (
            "postgresql+psycopg2://h/d",
            r"psycopg2-binary, or write postgresql\+psycopg:",
        ),
        ("mysql://h/d", r"pip install mysqlclient, or write mysql\+pymysql:// and pip"),
    ],
)
def test_a_driver_that_is_missing_is_named_with_its_package(
    url: str, remedy: str
) -> None:
    with pytest.raises(UsageError, match=remedy):
        Database(url)


@pytest.mark.parametrize("module", ["aiosqlite", "asyncpg", "asyncmy"])
def test_a_driver_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    urls = {
        "aiosqlite": "sqlite+aiosqlite:///x.db",
        "asyncpg": "postgresql+asyncpg://h/d",
        "asyncmy": "mysql+asyncmy://h/d",
    }
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(UsageError, match=r"pip install 'unitwork\[\w+\]'"):
        AsyncDatabase(urls[module])
