"""P1 to P3: a BaseHTTPMiddleware inside lets the body run beside the COMMIT."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import event, insert, select
from sqlalchemy.exc import InvalidRequestError
from starlette.middleware.base import BaseHTTPMiddleware

from support.asgi import Reply, call
from support.beside_commit import BesideCommit, pass_on
from support.flavours import ASYNC, SYNC, Flavour, Observer, only
from support.models import Item, add_item
from support.pool import check_pool_is_whole
from unitwork import DBSessionMiddleware, UnexpectedRollbackError, current_unit

pytestmark = pytest.mark.anyio


@only(*ASYNC, *SYNC)
async def test_what_is_added_beside_commit_is_stored_before_the_last_chunk(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await BesideCommit(flavour, lambda s, _: s.add(Item(name="b"))).call()

    assert (reply.body, reply.complete) == (b"12", True)
    assert observer.names() == ["a", "b"]
    await check_pool_is_whole(flavour)


@only(*ASYNC, *SYNC)
async def test_what_is_changed_beside_commit_is_stored_before_the_last_chunk(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await BesideCommit(flavour, lambda _, a: setattr(a, "name", "b")).call()

    assert reply.complete
    assert observer.names() == ["b"]


@only(*ASYNC)
async def test_what_is_deleted_beside_commit_is_deleted_before_the_last_chunk(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await BesideCommit(flavour, lambda s, a: s.delete(a)).call()

    assert reply.complete
    assert observer.names() == []


@only(*ASYNC, *SYNC)
async def test_a_change_that_commit_expires_cuts_the_response(
    flavour: Flavour, observer: Observer
) -> None:
    def work(session: Any, item: Item) -> None:
        getattr(session, "sync_session", session).expire_on_commit = True
        item.name = "b"

    reply = await BesideCommit(flavour, work).call()

    assert (reply.status, reply.complete) == (200, False)
    assert isinstance(reply.error, UnexpectedRollbackError)
    assert observer.names() == ["a"]
    await check_pool_is_whole(flavour)


@only(*ASYNC, *SYNC)
async def test_a_statement_beside_commit_is_refused_and_cuts_the_response(
    flavour: Flavour, observer: Observer
) -> None:
    def work(session: Any, item: Item) -> Any:
        return session.execute(insert(Item).values(name="b"))

    reply = await BesideCommit(flavour, work).call()

    assert (reply.status, reply.complete) == (200, False)
    assert isinstance(reply.error, InvalidRequestError)
    assert observer.names() == ["a"]
    await check_pool_is_whole(flavour)


@only(*ASYNC)
async def test_a_flush_that_is_refused_beside_commit_is_made_up_for(
    flavour: Flavour, observer: Observer
) -> None:
    async def work(session: Any, item: Item) -> None:
        session.add(Item(name="b"))
        with suppress(InvalidRequestError):
            await session.flush()

    reply = await BesideCommit(flavour, work).call()

    assert reply.complete
    assert observer.names() == ["a", "b"]


@only(*ASYNC, *SYNC)
@pytest.mark.parametrize("layers", [1, 2])
async def test_a_body_that_fails_beside_commit_is_cut_short(
    flavour: Flavour, observer: Observer, layers: int
) -> None:
    def work(session: Any, item: Item) -> None:
        raise LookupError

    reply = await BesideCommit(flavour, work, layers=layers).call()

    assert (reply.status, reply.complete) == (200, False)
    assert isinstance(reply.error, LookupError)
    assert observer.names() == ["a"]


async def reply_inside(
    flavour: Flavour, endpoint: Callable[[], Any], layers: int
) -> Reply:
    """That of *endpoint* inside *layers* of BaseHTTPMiddleware."""
    app = FastAPI()
    app.post("/")(endpoint)
    for _ in range(layers):
        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    return await call(app, "POST", "/")


@only(*ASYNC, *SYNC)
@pytest.mark.parametrize("layers", [1, 2])
async def test_a_body_that_fails_is_rolled_back_though_a_middleware_ends_it(
    flavour: Flavour, observer: Observer, layers: int
) -> None:
    async def endpoint() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"1"
            await flavour.do(flavour.db.current, add_item)
            raise LookupError

        current_unit()
        return StreamingResponse(body())

    reply = await reply_inside(flavour, endpoint, layers)

    assert (reply.body, reply.complete) == (b"1", False)
    assert isinstance(reply.error, LookupError)
    assert observer.names() == []
    await check_pool_is_whole(flavour)


@only(*ASYNC, *SYNC)
@pytest.mark.parametrize("layers", [0, 1])
async def test_a_body_that_follows_rollback_only_leaves_nothing_behind(
    flavour: Flavour, observer: Observer, layers: int
) -> None:
    async def endpoint() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"1"
            await flavour.do(flavour.db.current, add_item)

        await flavour.do(flavour.db.current, add_item)
        current_unit().rollback_only("dry run")
        return StreamingResponse(body())

    reply = await reply_inside(flavour, endpoint, layers)

    assert (reply.status, reply.body, reply.complete) == (200, b"1", True)
    assert observer.names() == []


@only(*ASYNC)
async def test_the_start_leaves_once_it_is_committed_though_its_sender_is_cancelled(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    senders: list[asyncio.Task[Any]] = []

    @event.listens_for(flavour.sync_engine, "commit")
    def cancel(connection: Any) -> None:
        senders[0].cancel()

    @app.post("/")
    async def endpoint() -> str:
        await flavour.do(flavour.db.current, add_item)
        return "stored"

    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    replies = []

    async def request() -> None:
        senders.append(asyncio.current_task())  # type: ignore[arg-type]
        await call(app, "POST", "/", on_message=replies.append)

    with suppress(asyncio.CancelledError):
        await asyncio.create_task(request())

    assert [m["type"] for m in replies] == ["http.response.start"]
    assert observer.names() == ["one"]
    await check_pool_is_whole(flavour)


@pytest.mark.filterwarnings("ignore:.*ServerCursor:ResourceWarning")
@only("aiosqlite", "psycopg-async", "asyncpg", "psycopg")
async def test_a_cursor_of_a_before_commit_hook_does_not_hold_the_commit_back(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    query = select(Item.name).execution_options(yield_per=1)
    cursors: list[Any] = []

    async def open_cursor() -> None:
        cursors.append(await flavour.db.current.stream(query))

    def open_cursor_in_thread() -> None:
        cursors.append(flavour.db.current.execute(query))

    @app.post("/")
    async def endpoint() -> StreamingResponse:
        await flavour.do(flavour.db.current, add_item)
        hook = open_cursor if flavour.is_async else open_cursor_in_thread
        current_unit().before_commit(hook)

        def body() -> Iterator[bytes]:
            raise LookupError
            yield b""

        return StreamingResponse(body())

    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    at_start: list[list[str]] = []
    await call(app, "POST", "/", on_message=lambda _: at_start.append(observer.names()))

    assert at_start == [["one"]]
    await check_pool_is_whole(flavour)
    cursors.clear()  # FastAPI caches the endpoint, and later tests expect no warning
