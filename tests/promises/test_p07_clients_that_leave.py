"""P7: a client that leaves while its response is on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect

from support.asgi import Message, call
from support.flavours import POSTGRESQL, Flavour, Observer, everywhere, only
from support.holding import holding, running
from support.models import add_item, names
from support.pool import check_pool_is_whole
from unitwork import DBSessionMiddleware, current_unit, transactional

pytestmark = [
    pytest.mark.anyio,
    # Cancelled while it connects, aiosqlite drops what its thread has opened meanwhile.
    # Python closes that at once, and complains from 3.13 on.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <sqlite3.Connection"
        ":pytest.PytestUnraisableExceptionWarning"
    ),
]


def serve_stream(
    flavour: Flavour, body: Callable[[Any], AsyncIterator[bytes]]
) -> FastAPI:
    """Answer with the chunks of *body*, which is given the session."""
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def stream() -> StreamingResponse:
        return StreamingResponse(body(flavour.db.current))

    return app


@everywhere
async def test_a_client_that_leaves_a_stream_takes_its_work_along(
    flavour: Flavour, observer: Observer
) -> None:
    gone = asyncio.Event()

    async def body(session: Any) -> AsyncIterator[bytes]:
        yield b"a"
        await flavour.do(session, lambda s: add_item(s).id)
        gone.set()
        await asyncio.Event().wait()

    reply = await call(serve_stream(flavour, body), "POST", "/", gone=gone)

    assert (reply.body, reply.complete, reply.error) == (b"a", False, None)
    await check_pool_is_whole(flavour)
    assert observer.names() == []


@only(*POSTGRESQL)
async def test_a_client_that_leaves_before_a_retry_is_followed_by_no_background_task(
    flavour: Flavour, observer: Observer
) -> None:
    gone, called = asyncio.Event(), list[str]()
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    def lose(session: Session) -> None:
        add_item(session)
        observer.terminate_all()
        with suppress(DBAPIError):
            names(session)

    async def body() -> AsyncIterator[bytes]:
        yield b"a"

    @app.post("/")
    @transactional(attempts=2)
    async def stream() -> StreamingResponse:
        await flavour.do(flavour.db.current, lose)
        current_unit().rollback_only()
        gone.set()
        return StreamingResponse(body(), background=BackgroundTask(called.append, ""))

    await call(app, "POST", "/", gone=gone)

    assert called == observer.names() == []


@everywhere
async def test_a_client_that_leaves_while_a_stream_queries_takes_its_work_along(
    hasty: Flavour, observer: Observer
) -> None:
    gone = asyncio.Event()

    with holding(hasty) as hold:

        async def body(session: Any) -> AsyncIterator[bytes]:
            await hasty.do(session, lambda s: add_item(s).id)
            yield b"a"
            yield await hasty.do(session, hold.execute)
            await checkpoint()

        app = serve_stream(hasty, body)
        async with running(call(app, "POST", "/", gone=gone)) as request:
            await hold.reached()
            gone.set()
            await checkpoint()
            hold.release()
            reply = await request

    assert not reply.complete
    assert observer.names() == []


async def test_a_client_that_is_found_gone_takes_the_work_of_a_stream_along(
    flavour: Flavour, observer: Observer
) -> None:
    async def body(session: Any) -> AsyncIterator[bytes]:
        yield b"a"
        await flavour.do(session, lambda s: add_item(s).id)
        yield b"b"

    def leave(message: Message) -> None:
        {b"b": broken_pipe}.get(message.get("body", b""), str)()

    reply = await call(
        serve_stream(flavour, body),
        "POST",
        "/",
        on_message=leave,
        asgi={"version": "3.0", "spec_version": "2.4"},
    )

    assert (reply.body, type(reply.error)) == (b"a", ClientDisconnect)
    await check_pool_is_whole(flavour)
    assert observer.names() == []


def broken_pipe() -> None:
    raise BrokenPipeError


@everywhere
async def test_a_stream_that_fails_half_way_rolls_its_own_part_back(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def stream() -> StreamingResponse:
        session = flavour.db.current
        await flavour.do(session, lambda s: add_item(s, "before the start").id)

        async def body() -> Any:
            yield b"a"
            await flavour.do(session, lambda s: add_item(s, "in the stream").id)
            raise LookupError

        return StreamingResponse(body())

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete) == (200, False)
    assert isinstance(reply.error, LookupError)
    await check_pool_is_whole(flavour)
    assert observer.names() == ["before the start"]
