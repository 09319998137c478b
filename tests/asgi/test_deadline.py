"""The deadline of a request: rolled back when it is over, unless COMMIT was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware

from support.asgi import call
from support.clocks import Clock
from support.conflicts import Conflict
from support.flavours import Flavour, Observer, everywhere, only
from support.holding import holding, running
from support.models import add_item, names
from support.pool import check_pool_is_whole
from unitwork import (
    DBSessionMiddleware,
    DeadlineExceededError,
    RetryPolicy,
    transactional,
)
from unitwork.fastapi import exception_handlers
from unitwork.testing import no_waits

pytestmark = pytest.mark.anyio

LIMIT = 30.0
LIMITED = transactional(deadline=LIMIT)
ASYNC = only("aiosqlite", "psycopg-async", "asyncpg")


def serve(flavour: Flavour, endpoint: Any, **options: Any) -> FastAPI:
    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(DBSessionMiddleware, db=flavour.db, **options)
    app.post("/")(endpoint)
    return app


Hanging = Callable[[Flavour, Callable[[], Any]], Any]


@pytest.fixture
def hanging(clock: Clock) -> Hanging:
    """An endpoint that writes, and then waits until its deadline has passed."""

    def make(flavour: Flavour, then: Callable[[], Any]) -> Any:
        @LIMITED
        async def endpoint() -> None:
            await flavour.do(flavour.db.current, add_item)
            asyncio.get_running_loop().call_soon(clock.put_forward, LIMIT)
            await then()

        return endpoint

    return make


@ASYNC
async def test_an_endpoint_that_waits_is_rolled_back_and_answered(
    flavour: Flavour, observer: Observer, hanging: Hanging
) -> None:
    reply = await call(
        serve(flavour, hanging(flavour, asyncio.Event().wait)), "POST", "/"
    )

    assert (reply.status, reply.complete) == (504, True)
    assert observer.names() == []
    assert observer.in_transaction() == []
    await check_pool_is_whole(flavour)


@ASYNC
async def test_without_a_handler_the_answer_is_504_and_the_error_is_logged(
    flavour: Flavour, caplog: pytest.LogCaptureFixture, hanging: Hanging
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(hanging(flavour, asyncio.Event().wait))

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete, reply.error) == (504, True, None)
    (error,) = (each.exc_info[1] for each in caplog.records if each.exc_info)
    assert isinstance(error, DeadlineExceededError)
    assert "30 seconds" in str(error)


@everywhere
async def test_a_statement_under_way_is_given_up(
    flavour: Flavour, observer: Observer, clock: Clock
) -> None:
    with holding(flavour, seconds=2 * LIMIT) as hold:

        def work(session: Session) -> None:
            add_item(session)
            hold.execute(session)

        app = serve(flavour, LIMITED(flavour.endpoint(work)))
        async with running(call(app, "POST", "/")) as request:
            await hold.reached()
            clock.put_forward(LIMIT)
            reply = await request

    assert (reply.status, reply.complete) == (504, True)
    await check_pool_is_whole(flavour)
    assert observer.names() == []


@only("sqlite3", "psycopg")
async def test_a_thread_that_goes_on_can_write_no_more(
    flavour: Flavour, observer: Observer, clock: Clock
) -> None:
    written, go, done = Event(), Event(), Event()
    refused: list[Exception] = []

    def work(session: Session) -> None:
        add_item(session)
        written.set()
        go.wait(10)
        try:
            add_item(session, "late")
        except Exception as error:
            refused.append(error)
        finally:
            done.set()

    app = serve(flavour, LIMITED(flavour.endpoint(work)))
    async with running(call(app, "POST", "/")) as request:
        await asyncio.to_thread(written.wait, 10)
        clock.put_forward(LIMIT)
        reply = await request
    go.set()
    await asyncio.to_thread(done.wait, 10)

    assert (reply.status, observer.names()) == (504, [])
    assert len(refused) == 1
    await check_pool_is_whole(flavour)


# With attempts


@only("sqlite3", "asyncpg")
async def test_no_attempt_begins_after_it(flavour: Flavour) -> None:
    attempts = []

    def lose(session: Session) -> None:
        attempts.append(add_item(session))
        raise Conflict

    endpoint = transactional(deadline=30, attempts=3)(flavour.endpoint(lose))
    patient = RetryPolicy(first_wait=1e7, longest_wait=1e7, give_up_after=1e9)

    reply = await call(serve(flavour, endpoint, retry=patient), "POST", "/")

    assert isinstance(reply.error, Conflict)
    assert len(attempts) == 1


@ASYNC
async def test_a_later_attempt_has_what_is_left_even_before_its_route_is_found(
    flavour: Flavour, observer: Observer, clock: Clock
) -> None:
    attempts = []

    async def hang(request: Any, call_next: Any) -> Any:
        attempts.append(request)
        if len(attempts) > 1:
            asyncio.get_running_loop().call_soon(clock.put_forward, LIMIT)
            await asyncio.Event().wait()
        return await call_next(request)

    def lose(session: Session) -> None:
        add_item(session)
        raise Conflict

    app = FastAPI()
    app.add_middleware(BaseHTTPMiddleware, dispatch=hang)
    app.add_middleware(DBSessionMiddleware, db=flavour.db, answer_errors=False)
    app.post("/")(transactional(deadline=LIMIT, attempts=3)(flavour.endpoint(lose)))

    with no_waits():
        async with asyncio.timeout(2 * LIMIT):
            reply = await call(app, "POST", "/")

    assert isinstance(reply.error, DeadlineExceededError)
    assert observer.names() == []
    await check_pool_is_whole(flavour)


# With others that cancel, or stand between


@ASYNC
async def test_it_counts_though_the_session_was_used_before_the_route_was_found(
    flavour: Flavour, observer: Observer, hanging: Hanging
) -> None:
    class Early:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await flavour.do(flavour.db.current, names)
            await self.app(scope, receive, send)

    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(Early)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(hanging(flavour, asyncio.Event().wait))

    async with asyncio.timeout(2 * LIMIT):
        reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (504, [])


@ASYNC
@pytest.mark.parametrize("around", [False, True])
async def test_beneath_and_above_base_http_middleware(
    flavour: Flavour, observer: Observer, around: bool, hanging: Hanging
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
async def test_in_a_task_group(
    flavour: Flavour, observer: Observer, hanging: Hanging
) -> None:
    async def hang() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)

    reply = await call(serve(flavour, hanging(flavour, hang)), "POST", "/")

    assert (reply.status, observer.names()) == (504, [])


@ASYNC
async def test_who_swallows_the_cancellation_commits_nothing(
    flavour: Flavour, observer: Observer, hanging: Hanging
) -> None:
    async def swallow() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    reply = await call(serve(flavour, hanging(flavour, swallow)), "POST", "/")

    assert (reply.status, observer.names()) == (504, [])


@ASYNC
async def test_the_callers_own_time_limit_still_works(
    flavour: Flavour, observer: Observer, hanging: Hanging
) -> None:
    app = serve(flavour, hanging(flavour, asyncio.Event().wait))

    async def request_and_wait() -> None:
        assert (await call(app, "POST", "/")).status == 504
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await request_and_wait()
    with anyio.move_on_after(0.01) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
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
async def test_a_cancellation_by_the_server_at_the_same_time_comes_first(
    flavour: Flavour, observer: Observer, hanging: Hanging
) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def be_cancelled_twice() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            tasks[0].cancel()

    app = serve(flavour, hanging(flavour, be_cancelled_twice))
    tasks.append(asyncio.create_task(call(app, "POST", "/")))
    await asyncio.wait(tasks)

    assert tasks[0].cancelled()
    assert observer.names() == []
    await check_pool_is_whole(flavour)


@ASYNC
async def test_a_request_in_time_is_left_alone(
    flavour: Flavour, observer: Observer
) -> None:
    endpoint = transactional(deadline=30)(flavour.endpoint(lambda s: add_item(s).id))

    assert (await call(serve(flavour, endpoint), "POST", "/")).status == 200
    assert observer.names() == ["one"]
