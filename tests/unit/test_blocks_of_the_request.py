"""Blocks and savepoints around a whole response: of middlewares and dependencies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware

from support.asgi import Reply, call
from support.flavours import ASYNC, SYNC, Flavour, Observer, only
from support.models import add_item
from support.pool import eventually
from unitwork import DBSessionMiddleware
from unitwork._unit.context import innermost

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::unitwork.BlockingSessionWarning"),
]

nested_in = pytest.mark.parametrize("nested", ["join", "savepoint"])
Scope = Literal["function", "request"]


def pass_on(request: Request, call_next: Any) -> Any:
    return call_next(request)


class InBlock:
    """An ASGI middleware that calls the application inside a block of its unit."""

    def __init__(self, app: Any, flavour: Flavour, nested: str) -> None:
        self._app = app
        self._flavour = flavour
        self._nested: Any = nested

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with self._flavour.block(nested=self._nested):
            await self._app(scope, receive, send)


def in_block(flavour: Flavour, nested: str) -> FastAPI:
    app = FastAPI()
    app.add_middleware(InBlock, flavour=flavour, nested=nested)

    @app.post("/")
    async def create() -> StreamingResponse:
        await flavour.do(flavour.db.current, add_item)
        return StreamingResponse(iter([b"x"]))  # sent by a task of its own

    return app


@only(*ASYNC, *SYNC)
@nested_in
@pytest.mark.parametrize("has_middleware", [False, True])
async def test_a_block_that_a_middleware_holds_open_is_stored(
    flavour: Flavour, observer: Observer, nested: str, has_middleware: bool
) -> None:
    app = in_block(flavour, nested)
    if has_middleware:
        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete) == (200, True)
    assert observer.names() == ["one"]


@only(*ASYNC)
@nested_in
async def test_a_block_that_a_middleware_of_a_mounted_application_holds_open(
    flavour: Flavour, observer: Observer, nested: str
) -> None:
    app = FastAPI()
    app.mount("/mounted", in_block(flavour, nested))
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    assert (await call(app, "POST", "/mounted/")).status == 200
    assert observer.names() == ["one"]


@only(*ASYNC)
async def test_the_block_of_an_endpoint_is_waited_for_by_an_early_response(
    flavour: Flavour, observer: Observer
) -> None:
    is_open = asyncio.Event()

    async def answer_early(request: Request, call_next: Any) -> Response:
        answer = asyncio.create_task(call_next(request))
        await is_open.wait()
        answer.cancel()
        return Response()

    app = FastAPI()
    app.add_middleware(BaseHTTPMiddleware, dispatch=answer_early)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def create() -> None:
        async with flavour.db.transaction(nested="join") as session:
            await session.run_sync(add_item, "first half")
            is_open.set()
            unit = innermost()
            await eventually(lambda: unit.is_ending)
            await session.run_sync(add_item, "second half")

    assert (await call(app, "POST", "/")).status == 200
    assert observer.names() == ["first half", "second half"]


# Dependencies, in threads


class Work:
    """A unit of work as a class, which many applications have."""

    def __init__(self, flavour: Flavour, nested: Any) -> None:
        self._block = flavour.db.transaction(nested=nested)

    def __enter__(self) -> Session:
        session: Session = self._block.__enter__()
        return session

    def __exit__(self, *exc_info: Any) -> None:
        self._block.__exit__(*exc_info)


def serve(flavour: Flavour) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    return app


async def write_in(flavour: Flavour, block: Callable[[], Any]) -> Reply:
    """The reply of an endpoint that writes in the *block* of a dependency."""
    app, injected = serve(flavour), Depends(block)

    @app.post("/")
    def create(session: Session = injected) -> None:
        add_item(session)

    return await call(app, "POST", "/")


@only(*SYNC)
@nested_in
async def test_a_block_that_a_class_of_a_dependency_holds_open_is_stored(
    flavour: Flavour, observer: Observer, nested: str
) -> None:
    def begin() -> Iterator[Session]:
        with Work(flavour, nested) as session:
            yield session

    assert (await write_in(flavour, begin)).status == 200
    assert observer.names() == ["one"]


@only(*SYNC)
async def test_an_own_block_that_a_class_of_a_dependency_holds_open_is_refused(
    flavour: Flavour, observer: Observer
) -> None:
    def begin() -> Iterator[Session]:
        with Work(flavour, "own") as session:
            yield session

    reply = await write_in(flavour, begin)

    assert (reply.status, 'scope="function"' in str(reply.error)) == (500, True)
    assert observer.names() == []


@only(*SYNC)
@pytest.mark.parametrize("undo", ["outer", "inner", "neither"])
async def test_a_dependency_rolls_its_savepoint_back(
    flavour: Flavour, observer: Observer, undo: str
) -> None:
    app = serve(flavour)
    injected = Depends(flavour.db.session)

    def outer(session: Session = injected) -> Iterator[None]:
        savepoint = session.begin_nested()
        add_item(session, "outer")
        yield
        (savepoint.rollback if undo == "outer" else savepoint.commit)()

    def inner(session: Session = injected) -> Iterator[None]:
        savepoint = session.begin_nested()
        add_item(session, "inner")
        yield
        (savepoint.rollback if undo == "inner" else savepoint.commit)()

    function: Scope = "function"
    depends = [Depends(outer, scope=function), Depends(inner, scope=function)]

    @app.post("/", dependencies=depends)
    def create(session: Session = injected) -> None:
        add_item(session)

    assert (await call(app, "POST", "/")).status == 200
    stored = {"outer": [], "inner": ["outer"], "neither": ["outer", "inner", "one"]}
    assert observer.names() == stored[undo]


@only(*SYNC)
@nested_in
async def test_a_block_that_is_entered_in_a_thread_of_its_own_is_stored(
    flavour: Flavour, observer: Observer, nested: str
) -> None:
    async def begin() -> AsyncIterator[Session]:
        block = flavour.db.transaction(nested=nested)
        async with contextmanager_in_threadpool(block) as session:
            yield session

    assert (await write_in(flavour, begin)).status == 200
    assert observer.names() == ["one"]


@only(*SYNC)
async def test_a_savepoint_that_was_begun_in_a_thread_of_its_own_is_rolled_back(
    flavour: Flavour, observer: Observer
) -> None:
    app = serve(flavour)

    @app.post("/")
    async def create() -> None:
        session = flavour.db.current
        savepoint = await run_in_threadpool(session.begin_nested)
        await run_in_threadpool(add_item, session)
        await run_in_threadpool(savepoint.rollback)

    assert (await call(app, "POST", "/")).status == 200
    assert observer.names() == []
