"""P7: a task or thread that outlives its request takes no connection with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI, HTTPException

from support.asgi import Message, call
from support.flavours import ASYNC, Flavour, Observer, everywhere, only
from support.holding import Hold, holding, running
from support.models import add_item, names
from support.pool import eventually
from unitwork import (
    DBSessionMiddleware,
    SessionEndedError,
    UsageError,
    current_unit,
)
from unitwork._unit.context import innermost

pytestmark = pytest.mark.anyio


@pytest.fixture
async def hold(hasty: Flavour) -> AsyncIterator[Hold]:
    with holding(hasty) as hold:
        yield hold


class Requests:
    """An endpoint that writes a row and leaves a statement running."""

    def __init__(self, flavour: Flavour, hold: Hold) -> None:
        self._flavour = flavour
        self._hold = hold
        self.ending = asyncio.Event()
        self.stray: asyncio.Task[Any] | None = None
        self.unit: Any = None
        self.app = FastAPI()
        self.app.add_middleware(DBSessionMiddleware, db=flavour.db)
        self.app.post("/{status}")(self.endpoint)

    async def endpoint(self, status: int) -> None:
        session = self._flavour.db.current
        await self._flavour.do(session, lambda s: add_item(s).id)
        stray = self._flavour.do(session, self._hold.execute)
        self.stray = asyncio.create_task(stray)
        await self._hold.reached()
        if status >= 400:
            raise HTTPException(status)
        self.unit = innermost()
        current_unit().before_commit(self._note)

    async def _note(self) -> None:
        self.ending.set()

    async def reached_commit(self) -> None:
        """Wait until the hook has ended, and COMMIT waits for the statement."""
        await self.ending.wait()
        await eventually(lambda: not self.unit.in_hook)

    async def stray_error(self) -> BaseException | None:
        assert self.stray is not None
        async with asyncio.timeout(10):
            await asyncio.wait((self.stray,))
        return self.stray.exception()


@pytest.fixture
def requests(hasty: Flavour, hold: Hold) -> Requests:
    return Requests(hasty, hold)


@everywhere
async def test_the_commit_waits_for_a_statement_that_is_under_way(
    flavour: Flavour, observer: Observer
) -> None:
    with holding(flavour) as hold:
        await flavour.dispose()  # SQLite: the next connection knows the statement
        requests = Requests(flavour, hold)
        async with running(call(requests.app, "POST", "/200")) as request:
            await requests.ending.wait()
            assert observer.names() == []
            hold.release()
            reply = await request

    assert (reply.status, reply.error, reply.complete) == (200, None, True)
    assert await requests.stray_error() is None
    assert observer.names() == ["one"]


@everywhere
async def test_a_statement_without_end_makes_the_commit_fail(
    requests: Requests, observer: Observer
) -> None:
    async with asyncio.timeout(10):
        reply = await call(requests.app, "POST", "/200")

    assert reply.status == 500
    assert isinstance(reply.error, UsageError)
    assert "another task or thread" in str(reply.error)
    assert await requests.stray_error() is not None
    assert observer.names() == []


@everywhere
async def test_a_statement_without_end_does_not_keep_a_rollback_waiting(
    requests: Requests, observer: Observer
) -> None:
    async with asyncio.timeout(10):
        reply = await call(requests.app, "POST", "/409")

    assert (reply.status, reply.error, reply.complete) == (409, None, True)
    assert await requests.stray_error() is not None
    assert observer.names() == []


@everywhere
async def test_a_cancelled_request_waits_for_the_statement_of_its_stray(
    flavour: Flavour, observer: Observer
) -> None:
    with holding(flavour) as hold:
        await flavour.dispose()
        requests = Requests(flavour, hold)
        async with running(call(requests.app, "POST", "/200")) as request:
            await requests.reached_commit()
            request.cancel()
            await asyncio.sleep(0)
            hold.release()
            await asyncio.wait((request,))

    assert request.cancelled()
    assert await requests.stray_error() is None
    # Async: COMMIT was not sent yet. A thread can't be cancelled, and goes on to it.
    assert observer.names() == ([] if flavour.is_async else ["one"])


@only(*ASYNC, "asyncmy")
async def test_one_of_two_queries_that_connect_at_once_may_be_left_running(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def gather() -> None:
        session = flavour.db.current
        await asyncio.gather(session.run_sync(names), session.run_sync(add_item))

    await flavour.dispose()  # on a connection that is there already both would work
    reply = await call(app, "POST", "/")

    assert reply.status == 500
    assert "concurrent operations are not permitted" in str(reply.error)
    assert observer.names() == []


@only(*ASYNC, "asyncmy")
async def test_the_one_left_running_may_be_without_end(
    hasty: Flavour, hold: Hold
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=hasty.db)
    strays: list[asyncio.Task[Any]] = []

    @app.post("/")
    async def gather() -> None:
        session = hasty.db.current
        for body in (hold.execute, names):
            strays.append(asyncio.create_task(session.run_sync(body)))
        await asyncio.gather(*strays)

    reply = await call(app, "POST", "/")
    results = await asyncio.gather(*strays, return_exceptions=True)

    assert reply.status == 500
    assert [isinstance(result, Exception) for result in results] == [True, True]


class Late:
    """A stray that begins to write when an event is set."""

    def __init__(self, flavour: Flavour) -> None:
        self._flavour = flavour
        self._begin = asyncio.Event()
        self.task: asyncio.Task[Any] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self._write(self._flavour.db.current))

    async def _write(self, session: Any) -> None:
        await self._begin.wait()
        await self._flavour.do(session, lambda s: add_item(s, "late").id)

    async def let_go(self) -> None:
        """Let it begin, and wait until it is done or refused."""
        assert self.task is not None
        self._begin.set()
        await asyncio.wait((self.task,))

    async def error(self) -> BaseException | None:
        assert self.task is not None
        return self.task.exception()


@pytest.fixture
def late(flavour: Flavour) -> Late:
    return Late(flavour)


@everywhere
async def test_a_stray_can_not_begin_while_the_last_chunk_leaves(
    app: FastAPI, flavour: Flavour, late: Late, observer: Observer
) -> None:
    @app.post("/")
    async def endpoint() -> None:
        await flavour.do(flavour.db.current, lambda s: add_item(s).id)
        late.start()

    async def let_go(message: Message) -> None:
        await {"http.response.body": late.let_go}.get(message["type"], checkpoint)()

    await call(app, "POST", "/", on_message=let_go)

    assert isinstance(await late.error(), SessionEndedError)
    assert observer.names() == ["one"]


@everywhere
async def test_a_stray_can_not_begin_while_the_hooks_of_a_failed_request_run(
    app: FastAPI, flavour: Flavour, late: Late, observer: Observer
) -> None:
    @app.post("/")
    async def endpoint() -> None:
        await flavour.do(flavour.db.current, lambda s: add_item(s).id)
        current_unit().on_rollback(late.let_go)
        late.start()
        raise LookupError

    await call(app, "POST", "/")

    assert isinstance(await late.error(), SessionEndedError)
    assert observer.names() == []


@only(*ASYNC, "asyncmy")
async def test_a_stray_can_not_begin_while_the_hooks_of_a_block_run(
    flavour: Flavour, late: Late, observer: Observer
) -> None:
    async with flavour.db.transaction() as session:
        await session.run_sync(add_item)
        current_unit().on_commit(late.let_go)
        late.start()

    assert isinstance(await late.error(), SessionEndedError)
    assert observer.names() == ["one"]
