"""P6: a session whose unit has ended refuses further use, and names the remedy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask

from support.asgi import Message, call
from support.flavours import ASYNC, Flavour, Observer, everywhere, only
from support.models import Item, add_item
from support.pool import check_pool_is_whole
from support.uses import USES, Use, serve_background, some_use
from unitwork import (
    DBSessionMiddleware,
    MissingSessionError,
    SessionEndedError,
    current_unit,
)

pytestmark = pytest.mark.anyio

each_use = pytest.mark.parametrize("use", USES.values(), ids=USES)

ASYNC_USES: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "begin": lambda session: session.begin().start(),
    "begin_nested": lambda session: session.begin_nested().start(),
    "commit": lambda session: session.commit(),
    "connection": lambda session: session.connection(),
    "execute": lambda session: session.execute(text("SELECT 1")),
    "get": lambda session: session.get(Item, 1),
    "merge": lambda session: session.merge(Item(id=1, name="late")),
    "scalar": lambda session: session.scalar(select(Item)),
    "stream": lambda session: session.stream(select(Item)),
}
REMEDY = r"`(async )?with db\.transaction\(\) as session:`"
refuses = pytest.raises(SessionEndedError, match=REMEDY)


class Captured:
    """An endpoint's session and row, kept longer than they should be."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.session: Any = None
        self.item: Any = None

    def endpoint(self) -> Callable[..., Any]:
        def body(session: Session) -> None:
            self.item = add_item(session)
            self.session = self.flavour.db.current

        return self.flavour.endpoint(body)

    async def use(self, use: Use) -> Any:
        return await self.flavour.do(self.session, use)


@pytest.fixture
async def captured(app: FastAPI, flavour: Flavour) -> Captured:
    """What an endpoint has kept, after its request."""
    captured = Captured(flavour)
    app.post("/")(captured.endpoint())
    assert (await call(app, "POST", "/")).status == 200
    return captured


# After the request


@everywhere
@each_use
async def test_nothing_that_would_begin_a_transaction_works(
    captured: Captured, observer: Observer, use: Use
) -> None:
    with refuses:
        await captured.use(use)

    await check_pool_is_whole(captured.flavour)
    assert observer.names() == ["one"]


@only(*ASYNC, "asyncmy")
@pytest.mark.parametrize("use", ASYNC_USES.values(), ids=ASYNC_USES)
async def test_nothing_that_would_begin_a_transaction_can_be_awaited(
    captured: Captured, use: Callable[[Any], Awaitable[Any]]
) -> None:
    with refuses:
        await use(captured.session)

    await check_pool_is_whole(captured.flavour)


@everywhere
@pytest.mark.parametrize("use", [Session.rollback, Session.close, Session.flush])
async def test_what_begins_nothing_does_no_harm(
    captured: Captured, observer: Observer, use: Use
) -> None:
    await captured.use(use)

    with refuses:
        await captured.use(USES["execute"])
    assert observer.names() == ["one"]


async def test_objects_that_were_loaded_keep_their_attributes(
    captured: Captured,
) -> None:
    assert (captured.item.id, captured.item.name) == (1, "one")


async def test_a_change_to_an_object_that_was_loaded_goes_nowhere(
    captured: Captured, observer: Observer
) -> None:
    captured.item.name = "late"
    await captured.use(Session.flush)

    with refuses:
        await captured.use(Session.commit)
    assert observer.names() == ["one"]


async def test_the_message_says_what_became_of_the_work(
    app: FastAPI, flavour: Flavour
) -> None:
    captured = Captured(flavour)
    app.post("/", status_code=409)(captured.endpoint())
    await call(app, "POST", "/")

    with pytest.raises(SessionEndedError, match="rolled back"):
        await captured.use(USES["execute"])


async def test_a_unit_that_never_began_is_over_all_the_same(
    app: FastAPI, flavour: Flavour
) -> None:
    captured = Captured(flavour)

    @app.get("/")
    async def endpoint() -> None:
        captured.session = flavour.db.current

    await call(app, "GET", "/")

    with refuses:
        await captured.use(USES["execute"])


# After a block


@everywhere
@some_use
async def test_after_a_block_nothing_that_would_begin_a_transaction_works(
    flavour: Flavour, observer: Observer, use: Use
) -> None:
    captured = Captured(flavour)

    def block(session: Session) -> None:
        captured.item = add_item(session)
        captured.session = flavour.db.current

    await flavour.work(block)

    with refuses:
        await captured.use(use)
    assert captured.item.name == "one"
    await check_pool_is_whole(flavour)
    assert observer.names() == ["one"]


async def test_after_a_block_its_unit_takes_no_more_orders(flavour: Flavour) -> None:
    unit = await flavour.work(lambda session: current_unit())

    for order in (unit.rollback_only, unit.commit_anyway):
        with refuses:
            order()
    for register in (unit.on_commit, unit.on_rollback, unit.before_commit):
        with refuses:
            register(print)


async def test_outside_of_any_unit_there_is_none_to_be_found(flavour: Flavour) -> None:
    with pytest.raises(MissingSessionError, match=REMEDY):
        assert flavour.db.current
    with pytest.raises(MissingSessionError, match=REMEDY):
        current_unit()


async def test_inside_a_block_the_ended_unit_of_the_request_is_out_of_sight(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    async def task(request: Request, session: Any) -> None:
        await flavour.work(lambda s: add_item(flavour_current(flavour), "inside").id)

    serve_background(flavour, app, task)
    reply = await call(app, "POST", "/")

    assert (reply.status, reply.error) == (200, None)
    assert observer.names() == ["one", "inside"]


def flavour_current(flavour: Flavour) -> Session:
    """The sync session under `db.current`."""
    session: Session = getattr(flavour.db.current, "sync_session", flavour.db.current)
    return session


@only("sqlite3", "aiosqlite", "psycopg", "asyncpg")
async def test_nothing_begins_while_the_last_chunk_leaves(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    leaving, strays = asyncio.Event(), []

    async def stray() -> None:
        await leaving.wait()
        await flavour.do(flavour.db.current, add_item)

    @app.post("/")
    async def endpoint() -> None:
        strays.append(asyncio.create_task(stray()))

    async def send_slowly(message: Message) -> None:
        if message["type"] == "http.response.body":
            leaving.set()
            await asyncio.wait(strays)

    reply = await call(app, "POST", "/", on_message=send_slowly)

    assert (reply.status, observer.names()) == (200, [])
    with pytest.raises(SessionEndedError):
        strays[0].result()
    await check_pool_is_whole(flavour)


@only("aiosqlite", "psycopg", "asyncpg")
async def test_a_background_task_begins_nothing_after_a_client_that_left(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    gone = asyncio.Event()
    found: list[str] = []

    async def late() -> None:
        with pytest.raises(SessionEndedError):
            await flavour.do(flavour.db.current, add_item)
        found.append("refused")

    @app.post("/")
    async def endpoint() -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "1"
            gone.set()
            await asyncio.Event().wait()

        return StreamingResponse(body(), background=BackgroundTask(late))

    await call(app, "POST", "/", gone=gone)

    assert (found, observer.names()) == (["refused"], [])


@only("aiosqlite", "psycopg", "asyncpg")
async def test_a_stream_that_was_left_runs_no_background_task_and_is_ended(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    gone = asyncio.Event()
    sessions: list[Any] = []
    done: list[str] = []

    @app.post("/")
    async def endpoint() -> StreamingResponse:
        sessions.append(session := flavour.db.current)

        async def body() -> AsyncIterator[str]:
            await flavour.do(session, add_item)
            yield "1"
            gone.set()
            await asyncio.Event().wait()

        background = BackgroundTask(done.append, "mail sent")
        return StreamingResponse(body(), background=background)

    reply = await call(app, "POST", "/", gone=gone)

    assert (reply.body, reply.complete, reply.error) == (b"1", False, None)
    assert (done, observer.names(), observer.in_transaction()) == ([], [], [])
    with pytest.raises(SessionEndedError):
        await flavour.do(sessions[0], lambda s: add_item(s, "late"))
    await check_pool_is_whole(flavour)
