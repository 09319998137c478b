"""P6: the same in what the endpoint has left running."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request

from support.asgi import Reply, call
from support.flavours import SYNC, Flavour, Observer, everywhere, only
from support.models import add_item
from support.pool import check_pool_is_whole
from support.uses import USES, Use, serve_background, some_use
from unitwork import SessionEndedError, current_unit

pytestmark = pytest.mark.anyio

LATE: dict[str, Callable[[Flavour, Request], Any]] = {
    "request.state.db": lambda flavour, request: request.state.db,
    "db.current": lambda flavour, request: flavour.db.current,
    "current_unit()": lambda flavour, request: current_unit(),
}


@everywhere
@some_use
async def test_a_background_task_can_not_use_it(
    app: FastAPI, flavour: Flavour, observer: Observer, use: Use
) -> None:
    async def task(request: Request, session: Any) -> None:
        await flavour.do(session, use)

    serve_background(flavour, app, task)
    reply = await call(app, "POST", "/")

    assert_refused(reply)
    await check_pool_is_whole(flavour)
    assert observer.names() == ["one"]


@only(*SYNC)
async def test_a_sync_background_task_can_not_use_it(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    serve_background(flavour, app, lambda request, session: add_item(session, "late"))

    assert_refused(await call(app, "POST", "/"))
    await check_pool_is_whole(flavour)
    assert observer.names() == ["one"]


@pytest.mark.parametrize("way", LATE.values(), ids=LATE)
@pytest.mark.parametrize("coloured", [False, True], ids=["sync", "async"])
async def test_a_background_task_finds_no_session(
    app: FastAPI,
    flavour: Flavour,
    way: Callable[[Flavour, Request], Any],
    coloured: bool,
) -> None:
    def task(request: Request, session: Any) -> None:
        way(flavour, request)

    async def async_task(request: Request, session: Any) -> None:
        way(flavour, request)

    serve_background(flavour, app, (task, async_task)[coloured])

    assert_refused(await call(app, "POST", "/"))


async def test_a_background_task_is_not_given_a_session(
    app: FastAPI, flavour: Flavour
) -> None:
    async def task(request: Request, session: Any) -> None:
        await flavour.db.session(request)

    serve_background(flavour, app, task)

    assert_refused(await call(app, "POST", "/"))


@everywhere
async def test_a_background_task_may_open_a_unit_of_its_own(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    async def task(request: Request, session: Any) -> None:
        await flavour.work(lambda s: add_item(s, "by the task").id)

    serve_background(flavour, app, task)
    reply = await call(app, "POST", "/")

    assert (reply.status, reply.error) == (200, None)
    assert observer.names() == ["one", "by the task"]


@everywhere
async def test_a_task_that_the_endpoint_has_spawned_can_not_use_it(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    answered = asyncio.Event()
    spawned: list[asyncio.Task[Any]] = []

    async def late() -> None:
        session = flavour.db.current
        await answered.wait()
        await flavour.do(session, USES["add"])

    async def later() -> None:
        await answered.wait()
        await flavour.do(flavour.db.current, USES["add"])

    @app.post("/")
    async def endpoint() -> None:
        await flavour.do(flavour.db.current, lambda s: add_item(s).id)
        spawned.extend(asyncio.create_task(work()) for work in (late, later))
        await asyncio.sleep(0)

    await call(app, "POST", "/")
    answered.set()
    errors = await asyncio.gather(*spawned, return_exceptions=True)

    assert [type(error) for error in errors] == [SessionEndedError] * 2
    await check_pool_is_whole(flavour)
    assert observer.names() == ["one"]


def assert_refused(reply: Reply) -> None:
    """The client has its whole answer, and the task got an error."""
    assert (reply.status, reply.complete) == (200, True)
    assert isinstance(reply.error, SessionEndedError)
    assert "db.transaction()" in str(reply.error)
