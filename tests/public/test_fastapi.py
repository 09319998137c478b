"""The dependency, and the exception handlers that are ready to install."""

from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from fastapi import FastAPI
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from support.asgi import Reply, call
from support.databases import check_nothing_is_left
from support.endpoints import serve_fastapi, serve_starlette
from support.flavours import POSTGRESQL, Flavour, Observer, only
from support.models import add_item, add_orphan
from unitwork import (
    AsyncDatabase,
    Database,
    DBSessionMiddleware,
    MissingSessionError,
    PoolTimeoutError,
    current_unit,
)
from unitwork.fastapi import (
    UnitDep,
    answer_conflict,
    answer_database_error,
    answer_pool_timeout,
    exception_handlers,
)

pytestmark = pytest.mark.anyio

serve = partial(serve_fastapi, handlers=exception_handlers)


def check_problem(reply: Reply, status: int, title: str) -> None:
    """An RFC 9457 problem, and nothing else, is the answer."""
    assert (reply.status, reply.complete, reply.error) == (status, True, None)
    headers = dict(reply.starts[0]["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    problem = reply.json
    assert problem.pop("detail").endswith(".")
    assert problem == {"type": "about:blank", "title": title, "status": status}


def retry_after(reply: Reply) -> bytes | None:
    found: bytes | None = dict(reply.starts[0]["headers"]).get(b"retry-after")
    return found


# UnitDep


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_unit_dep_is_the_unit_of_the_request(flavour: Flavour, kind: str) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.get("/async def")
    async def on_the_loop(unit: UnitDep) -> bool:
        return unit is current_unit()

    @app.get("/def")
    def in_a_thread(unit: UnitDep) -> bool:
        return unit is current_unit()

    reply = await call(app, "GET", f"/{kind}")

    assert (reply.json, list(app.openapi()["paths"][f"/{kind}"])) == (True, ["get"])
    assert "parameters" not in app.openapi()["paths"][f"/{kind}"]["get"]


async def test_unit_dep_needs_the_middleware() -> None:
    app = FastAPI()

    @app.get("/")
    async def endpoint(unit: UnitDep) -> None:
        raise AssertionError("got a unit from nowhere")

    reply = await call(app, "GET", "/")

    assert isinstance(reply.error, MissingSessionError)
    assert "DBSessionMiddleware" in str(reply.error)


# Conflicts


def fails_at_flush(session: Session) -> Response:
    add_item(session)
    add_item(session)
    return Response()


def fails_at_commit(session: Session) -> Response:
    add_orphan(session)
    return Response()


@pytest.mark.parametrize("body", [fails_at_flush, fails_at_commit])
@pytest.mark.parametrize("framework", [serve_fastapi, serve_starlette])
async def test_a_constraint_that_is_broken_is_a_conflict(
    flavour: Flavour, observer: Observer, framework: Any, body: Callable[..., None]
) -> None:
    app = framework(flavour, body, handlers=exception_handlers)

    reply = await call(app, "POST", "/")

    check_problem(reply, 409, "Conflict")
    assert (retry_after(reply), observer.names()) == (None, [])


# No connection free


@asynccontextmanager
async def held(flavour: Flavour) -> AsyncIterator[None]:
    """Hold a connection in a block of its own."""
    block = flavour.db.transaction()
    if flavour.is_async:
        async with block as session:
            await session.connection()
            yield
        return
    session = await to_thread.run_sync(block.__enter__)
    await to_thread.run_sync(session.connection)
    yield
    await to_thread.run_sync(block.__exit__, None, None, None)


@pytest.fixture
async def narrow(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database with one connection, and no patience."""
    narrow = flavour.another(pool_size=1, max_overflow=0, pool_timeout=0.02)
    yield narrow
    await check_nothing_is_left(narrow)
    await narrow.dispose()


async def test_a_pool_that_is_used_up_is_unavailable(narrow: Flavour) -> None:
    async with held(narrow):
        reply = await call(serve(narrow, add_item), "POST", "/")

    check_problem(reply, 503, "Service Unavailable")
    assert retry_after(reply) == b"1"


@pytest.mark.parametrize(
    ("seconds", "header"), [(0, b"1"), (0.2, b"1"), (1.5, b"2"), (30, b"30")]
)
async def test_retry_after_is_in_whole_seconds(
    flavour: Flavour, seconds: float, header: bytes
) -> None:
    def body(session: Session) -> None:
        raise PoolTimeoutError("busy", retry_after=seconds)

    reply = await call(serve(flavour, body), "POST", "/")

    check_problem(reply, 503, "Service Unavailable")
    assert retry_after(reply) == header


# No database there


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port on which no server listens, and no other can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize(
    ("kind", "driver"),
    [
        (Database, "postgresql+psycopg"),
        (AsyncDatabase, "postgresql+psycopg"),
        (AsyncDatabase, "postgresql+asyncpg"),
        (Database, "mysql+pymysql"),
        (AsyncDatabase, "mysql+asyncmy"),
        (Database, "sqlite"),
        (AsyncDatabase, "sqlite+aiosqlite"),
    ],
)
async def test_a_server_that_can_not_be_reached_is_unavailable(
    kind: Any, driver: str, deaf_port: int
) -> None:
    where = f"u@127.0.0.1:{deaf_port}/x"
    url = f"{driver}://{'/nowhere/x.db' if 'sqlite' in driver else where}"
    flavour, before = Flavour(driver, url, kind(url)), set(threading.enumerate())

    reply = await call(serve(flavour, Session.connection), "POST", "/")
    await flavour.dispose()
    await drivers_threads(before)

    check_problem(reply, 503, "Service Unavailable")
    assert retry_after(reply) == b"5"


async def drivers_threads(before: set[threading.Thread]) -> None:
    """Wait for the thread of an aiosqlite connection that never came to be."""
    for thread in set(threading.enumerate()) - before:
        if "connection_worker" in thread.name:
            await to_thread.run_sync(thread.join, 5)


async def test_a_name_that_can_not_be_resolved_is_unavailable() -> None:
    url = "postgresql+asyncpg://u@/x"
    db = AsyncDatabase(url, connect_args={"host": "fe80::1%nowhere"})

    reply = await call(
        serve(Flavour("asyncpg", url, db), Session.connection), "GET", "/"
    )

    check_problem(reply, 503, "Service Unavailable")


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port on which no server ever answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


async def test_a_server_that_does_not_answer_is_unavailable(mute_port: int) -> None:
    url = f"postgresql+asyncpg://u:p@127.0.0.1:{mute_port}/x"
    db = AsyncDatabase(url, connect_args={"timeout": 0.05})

    reply = await call(
        serve(Flavour("asyncpg", url, db), Session.connection), "GET", "/"
    )

    check_problem(reply, 503, "Service Unavailable")


async def test_a_server_with_two_addresses_that_can_not_be_reached_is_unavailable(
    deaf_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def resolve_to_two(host: Any, *args: Any, **options: Any) -> Any:
        ways = ("127.0.0.1", "127.0.0.2") if host == "two.test" else (host,)
        return [found for way in ways for found in resolve(way, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve_to_two)
    url = f"postgresql+asyncpg://u:p@two.test:{deaf_port}/x"

    reply = await call(
        serve(Flavour("asyncpg", url, AsyncDatabase(url)), Session.connection),
        "GET",
        "/",
    )

    check_problem(reply, 503, "Service Unavailable")


async def test_a_unix_socket_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    url = f"postgresql+asyncpg://u:p@/x?host={tmp_path}"

    reply = await call(
        serve(Flavour("asyncpg", url, AsyncDatabase(url)), Session.connection),
        "GET",
        "/",
    )

    check_problem(reply, 503, "Service Unavailable")


@only("aiosqlite", "psycopg", "asyncpg")
@pytest.mark.parametrize(
    "kind",
    [ConnectionRefusedError, socket.gaierror, OSError, TimeoutError, FileNotFoundError],
)
async def test_another_service_that_can_not_be_reached_is_not_our_affair(
    flavour: Flavour, kind: type[OSError]
) -> None:
    def body(session: Session) -> None:
        session.connection()
        raise kind("some other server")

    reply = await call(serve(flavour, body), "POST", "/")

    assert (reply.status, type(reply.error)) == (500, kind)


@only(*POSTGRESQL)
async def test_a_connection_that_was_lost_is_unavailable(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        observer.terminate_all()
        add_item(session, "two")

    reply = await call(serve(flavour, body), "POST", "/")

    check_problem(reply, 503, "Service Unavailable")
    assert observer.names() == []


@only("sqlite3", "aiosqlite")
async def test_a_locked_sqlite_file_is_unavailable(flavour: Flavour) -> None:
    @event.listens_for(flavour.sync_engine, "connect")
    def be_impatient(connection: Any, record: object) -> None:
        connection.cursor().execute("PRAGMA busy_timeout = 1").close()

    await flavour.dispose()
    lock = sqlite3.connect(str(flavour.sync_engine.url.database))
    lock.execute("BEGIN IMMEDIATE")
    reply = await call(serve(flavour, add_item), "POST", "/")
    lock.close()

    check_problem(reply, 503, "Service Unavailable")
    assert retry_after(reply) == b"1"


# Everything else


async def test_other_errors_of_the_database_stay_what_they_are(
    flavour: Flavour,
) -> None:
    def body(session: Session) -> None:
        session.execute(text("SELECT nothing FROM nowhere"))

    reply = await call(serve(flavour, body), "POST", "/")

    assert (reply.status, reply.body) == (500, b"Internal Server Error")
    assert isinstance(reply.error, DBAPIError)
    assert reply.complete


@only(*POSTGRESQL)
async def test_a_trigger_that_says_no_at_commit_is_no_outage(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        session.execute(text(REFUSE))
        session.execute(
            text(
                "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON item DEFERRABLE "
                "INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp.refuse()"
            )
        )
        add_item(session)

    reply = await call(serve(flavour, body), "POST", "/")

    assert (reply.status, reply.complete, observer.names()) == (500, True, [])
    assert "the books don't balance" in str(reply.error)


REFUSE = """
CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the books don''t balance'; END $$
"""


async def test_each_handler_can_be_installed_by_itself(flavour: Flavour) -> None:
    app = serve_fastapi(flavour, add_orphan, handlers={IntegrityError: answer_conflict})
    app.post("/wrong")(flavour.endpoint(lambda s: s.execute(text("nonsense"))))

    assert (await call(app, "POST", "/")).status == 409
    assert (await call(app, "POST", "/wrong")).status == 500


async def test_handlers_can_be_called_by_other_handlers() -> None:
    request = Request({"type": "http"})
    lost = DBAPIError("SELECT 1", None, Exception(), connection_invalidated=True)
    wrong = ProgrammingError("SELECT", None, Exception())

    assert (await answer_conflict(request, wrong)).status_code == 409
    assert (await answer_pool_timeout(request, TimeoutError())).status_code == 503
    assert (await answer_database_error(request, lost)).status_code == 503
    with pytest.raises(ProgrammingError):
        await answer_database_error(request, wrong)
