"""A deadline that passes while something is being committed: that is left to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.clocks import Clock
from support.flavours import POSTGRESQL, Flavour, Observer, only
from support.models import add_item, names
from support.proxy import Proxy
from unitwork import (
    DBSessionMiddleware,
    DeadlineExceededError,
    current_unit,
    transactional,
)
from unitwork.fastapi import exception_handlers

pytestmark = pytest.mark.anyio

LIMIT = 30.0  # less than commit_timeout
LIMITED = transactional(deadline=LIMIT)


def serve(flavour: Flavour, endpoint: Callable[..., object]) -> FastAPI:
    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(endpoint)
    return app


@only(*POSTGRESQL)
async def test_a_commit_under_way_stands(
    flavour: Flavour, observer: Observer, clock: Clock
) -> None:
    def app(there: Flavour) -> FastAPI:
        return serve(there, LIMITED(there.endpoint(lambda s: add_item(s).id)))

    reply = await passing_at_commit(flavour, app, clock)

    assert (reply.status, observer.names()) == (200, ["one"])


@only(*POSTGRESQL)
async def test_a_commit_by_hand_under_way_stands_and_is_told_of(
    flavour: Flavour, observer: Observer, clock: Clock
) -> None:
    came_back = []

    def by_hand(session: Session) -> None:
        add_item(session)
        session.commit()
        came_back.append(True)

    def app(there: Flavour) -> FastAPI:
        @LIMITED
        async def endpoint() -> None:
            await there.do(there.db.current, by_hand)
            await asyncio.Event().wait()

        app = FastAPI()
        app.add_middleware(DBSessionMiddleware, db=there.db, answer_errors=False)
        app.post("/")(endpoint)
        return app

    reply = await passing_at_commit(flavour, app, clock)

    assert (came_back, observer.names()) == ([True], ["one"])
    assert isinstance(reply.error, DeadlineExceededError)
    assert "what session.commit() had not committed was rolled back" in str(reply.error)


@only("psycopg-async", "asyncpg")
async def test_a_block_of_its_own_that_is_being_committed_stands(
    flavour: Flavour, observer: Observer, clock: Clock
) -> None:
    def app(there: Flavour) -> FastAPI:
        @LIMITED
        async def endpoint() -> None:
            await there.do(there.db.current, lambda s: add_item(s, "lost") and None)
            await there.work(lambda session: add_item(session) and None)
            await asyncio.Event().wait()

        return serve(there, endpoint)

    reply = await passing_at_commit(flavour, app, clock)

    assert (reply.status, observer.names()) == (504, ["one"])


@only("aiosqlite", "sqlite3")
@pytest.mark.parametrize("turns", range(8))
async def test_an_end_with_nothing_to_commit_stands_once_its_hooks_have_run(
    flavour: Flavour, clock: Clock, turns: int
) -> None:
    loop = asyncio.get_running_loop()

    def pass_deadline(turns: int) -> None:
        if turns:
            loop.call_soon(pass_deadline, turns - 1)
        else:
            clock.put_forward(LIMIT)

    async def hook() -> None:
        pass_deadline(turns)

    @LIMITED
    async def endpoint() -> str:
        assert flavour.db.current is not None
        current_unit().on_commit(hook)
        return "done"

    reply = await call(serve(flavour, endpoint), "POST", "/")

    assert (reply.status, reply.json) == (200, "done")


async def passing_at_commit(
    flavour: Flavour, app: Callable[[Flavour], FastAPI], clock: Clock
) -> Reply:
    """Make a request; hold its first COMMIT till the deadline has passed."""
    async with Proxy(flavour.url) as proxy:
        there = replace(flavour, url=proxy.url).another()
        await there.work(names)
        held = asyncio.Event()

        def hold() -> None:
            for line in proxy.lines.values():
                line.hold()
            held.set()

        proxy.when(b"COMMIT", hold)
        task = asyncio.create_task(call(app(there), "POST", "/"))
        await first_of(held.wait(), task)  # the request, if it has failed instead
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(LIMIT, over.set)
        clock.put_forward(LIMIT)
        await over.wait()  # the deadline has passed, too, and COMMIT is left alone
        for line in proxy.lines.values():
            line.release()
        reply = await task
        await there.dispose()
    return reply


async def first_of(
    wait: Coroutine[Any, Any, object], task: asyncio.Task[Reply]
) -> None:
    waiting = asyncio.create_task(wait)
    await asyncio.wait((waiting, task), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
