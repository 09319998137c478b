"""A response that is sent inside a block which has a unit of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.responses import PlainTextResponse

from support.asgi import ASGIApp, Reply, call
from support.flavours import ASYNC, EVERY, POSTGRESQL, Flavour, Observer, only
from support.models import Item, add_item, names
from unitwork import DBSessionMiddleware, UsageError

pytestmark = pytest.mark.anyio

every = only(*EVERY)


class InsideBlock:
    """A middleware that calls its application inside a block, after *first*."""

    def __init__(
        self,
        app: ASGIApp,
        flavour: Flavour,
        first: Callable[[Session], Any],
        **options: Any,
    ) -> None:
        self.app, self.flavour, self.first = app, flavour, first
        self.options = options

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with self.flavour.block(**self.options) as session:
            await self.flavour.do(session, self.first)
            await self.app(scope, receive, send)


async def request(
    flavour: Flavour,
    answer: ASGIApp,
    first: Callable[[Session], Any],
    **options: Any,
) -> Reply:
    app = InsideBlock(answer, flavour, first, **options)
    return await call(DBSessionMiddleware(app, db=flavour.db), "POST", "/")


def add_quietly(session: Session) -> None:
    session.add(Item(name="one"))


@every
@pytest.mark.parametrize("first", [add_item, add_quietly])
@pytest.mark.parametrize("status", [201, 409])
async def test_is_replaced_by_an_error_if_the_block_has_written(
    flavour: Flavour,
    observer: Observer,
    first: Callable[[Session], Any],
    status: int,
) -> None:
    reply = await request(flavour, PlainTextResponse("", status), first)

    assert isinstance(reply.error, UsageError)
    assert (reply.starts, observer.names()) == ([], [])


@only(*POSTGRESQL)
async def test_is_replaced_if_a_function_has_written(flavour: Flavour) -> None:
    def advance(session: Session) -> None:
        session.execute(text("SELECT nextval('item_id_seq')"))

    reply = await request(flavour, PlainTextResponse(), advance)

    assert isinstance(reply.error, UsageError)


@every
async def test_is_cut_short_if_the_block_has_written_since_its_start(
    flavour: Flavour, observer: Observer
) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        async with flavour.block() as session:
            await flavour.do(session, add_item)
            await send({"type": "http.response.body", "body": b"stored"})

    reply = await call(DBSessionMiddleware(answer, db=flavour.db), "POST", "/")

    assert isinstance(reply.error, UsageError)
    assert (reply.body, observer.names()) == (b"", [])


@every
@pytest.mark.parametrize("options", [{}, {"read_only": True}, {"nested": "join"}])
async def test_is_sent_if_the_block_has_only_read(
    flavour: Flavour, options: dict[str, Any]
) -> None:
    reply = await request(flavour, PlainTextResponse(), names, **options)

    assert (reply.status, reply.error) == (200, None)


@only(*ASYNC)
@pytest.mark.parametrize("nested", ["join", "savepoint"])
async def test_is_sent_if_the_block_has_joined_the_request(
    flavour: Flavour, observer: Observer, nested: str
) -> None:
    reply = await request(flavour, PlainTextResponse(), add_item, nested=nested)

    assert (reply.status, reply.error) == (200, None)
    assert observer.names() == ["one"]


@every
async def test_a_task_beside_may_be_inside_a_block(
    flavour: Flavour, observer: Observer
) -> None:
    written, answered = asyncio.Event(), asyncio.Event()

    async def beside() -> None:
        async with flavour.block() as session:
            await flavour.do(session, add_item)
            written.set()
            await answered.wait()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.create_task(beside())
        await written.wait()
        await PlainTextResponse()(scope, receive, send)
        answered.set()
        await task

    reply = await call(DBSessionMiddleware(answer, db=flavour.db), "POST", "/")

    assert (reply.status, reply.error) == (200, None)
    assert observer.names() == ["one"]
