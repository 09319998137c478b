"""The deadline of a request: rolled back when it is over, unless COMMIT was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from threading import Event
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware

from conftest import POSTGRESQL, only
from support.asgi import call
from support.flavours import Flavour, Observer
from support.models import add_item, names
from support.pool import check_pool_is_whole
from support.proxy import Proxy
from unitwork import DBSessionMiddleware, DeadlineExceededError, transactional
from unitwork.fastapi import exception_handlers

pytestmark = pytest.mark.anyio

SOON = transactional(deadline=0.15)
ASYNC = only("aiosqlite", "psycopg-async", "asyncpg")


def serve(flavour: Flavour, endpoint: Any, **options: Any) -> FastAPI:
    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(DBSessionMiddleware, db=flavour.db, **options)
    app.post("/")(endpoint)
    return app


def hanging(flavour: Flavour, then: Callable[[], Any]) -> Any:
    """An endpoint that writes, and then waits for what never comes."""

    @SOON
    async def endpoint() -> None:
        await flavour.do(flavour.db.current, add_item)
        await then()

    return endpoint


@ASYNC
async def test_an_endpoint_that_waits_is_rolled_back_and_answered(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await call(
        serve(flavour, hanging(flavour, asyncio.Event().wait)), "POST", "/"
    )

    assert (reply.status, reply.complete) == (504, True)
    assert observer.names() == []
    assert observer.in_transaction() == []
    await check_pool_is_whole(flavour)


@ASYNC
async def test_without_a_handler_the_error_is_raised(flavour: Flavour) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(hanging(flavour, asyncio.Event().wait))

    reply = await call(app, "POST", "/")

    assert isinstance(reply.error, DeadlineExceededError)
    assert "0.15 seconds" in str(reply.error)


@only("psycopg-async", "asyncpg", "psycopg")
async def test_a_statement_under_way_is_given_up(
    flavour: Flavour, observer: Observer
) -> None:
    # Nobody cancels what a thread has sent: the server is done with it by itself.
    seconds = 60 if flavour.is_async else 1

    def sleep(session: Session) -> None:
        add_item(session)
        session.execute(text(f"SELECT pg_sleep({seconds})"))

    reply = await call(serve(flavour, SOON(flavour.endpoint(sleep))), "POST", "/")

    assert (reply.status, observer.names()) == (504, [])
    assert await flavour.work(names) == []
    await check_pool_is_whole(flavour)


@only("sqlite3", "psycopg")
async def test_a_thread_that_goes_on_can_write_no_more(
    flavour: Flavour, observer: Observer
) -> None:
    go, done = Event(), Event()
    refused: list[Exception] = []

    def work(session: Session) -> None:
        add_item(session)
        go.wait(10)
        try:
            add_item(session, "late")
        except Exception as error:
            refused.append(error)
        finally:
            done.set()

    reply = await call(serve(flavour, SOON(flavour.endpoint(work))), "POST", "/")
    go.set()
    await asyncio.to_thread(done.wait, 10)

    assert (reply.status, observer.names()) == (504, [])
    assert len(refused) == 1
    await check_pool_is_whole(flavour)


@only(*POSTGRESQL)
async def test_a_commit_under_way_stands(flavour: Flavour, observer: Observer) -> None:
    async with Proxy(flavour.url) as proxy:
        there = replace(flavour, url=proxy.url).another()
        await there.work(names)
        app = serve(there, SOON(there.endpoint(lambda s: add_item(s).id)))
        held = asyncio.Event()

        def hold() -> None:
            for line in proxy.lines.values():
                line.hold()
            held.set()

        proxy.when(b"COMMIT", hold)
        task = asyncio.create_task(call(app, "POST", "/"))
        await held.wait()
        await after(0.3)
        for line in proxy.lines.values():
            line.release()
        reply = await task
        await there.dispose()

    assert (reply.status, observer.names()) == (200, ["one"])


async def after(seconds: float) -> None:
    """Wait till a timer that was set before has gone off, and what it does is done."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    await over.wait()


@ASYNC
@pytest.mark.parametrize("around", [False, True])
async def test_beneath_and_above_base_http_middleware(
    flavour: Flavour, observer: Observer, around: bool
) -> None:
    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app = FastAPI(exception_handlers=exception_handlers)
    order: list[Any] = [
        (DBSessionMiddleware, {"db": flavour.db}),
        (BaseHTTPMiddleware, {"dispatch": pass_on}),
    ]
    for kind, options in order if around else reversed(order):
        app.add_middleware(kind, **options)
    app.post("/")(hanging(flavour, asyncio.Event().wait))

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete, observer.names()) == (504, True, [])
    await check_pool_is_whole(flavour)


@ASYNC
async def test_in_a_task_group(flavour: Flavour, observer: Observer) -> None:
    async def hang() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)

    reply = await call(serve(flavour, hanging(flavour, hang)), "POST", "/")

    assert (reply.status, observer.names()) == (504, [])


@ASYNC
async def test_who_swallows_the_cancellation_commits_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    async def swallow() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    reply = await call(serve(flavour, hanging(flavour, swallow)), "POST", "/")

    assert (reply.status, observer.names()) == (504, [])


@ASYNC
async def test_the_callers_own_time_limit_still_works(
    flavour: Flavour, observer: Observer
) -> None:
    app = serve(flavour, hanging(flavour, asyncio.Event().wait))

    async def request_and_wait() -> None:
        assert (await call(app, "POST", "/")).status == 504
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await request_and_wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@ASYNC
async def test_a_cancellation_by_the_server_is_no_deadline(
    flavour: Flavour, observer: Observer
) -> None:
    at_it = asyncio.Event()

    @transactional(deadline=60)
    async def endpoint() -> None:
        await flavour.do(flavour.db.current, add_item)
        at_it.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(call(serve(flavour, endpoint), "POST", "/"))
    await at_it.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert observer.names() == []
    await check_pool_is_whole(flavour)


@ASYNC
async def test_a_request_in_time_is_left_alone(
    flavour: Flavour, observer: Observer
) -> None:
    endpoint = transactional(deadline=30)(flavour.endpoint(lambda s: add_item(s).id))

    assert (await call(serve(flavour, endpoint), "POST", "/")).status == 200
    assert observer.names() == ["one"]
