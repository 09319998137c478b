"""Hooks: the database, the thread and the context that they find."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.responses import Response

from support.asgi import call
from support.databases import check_nothing_is_left
from support.endpoints import Body, serve_fastapi
from support.flavours import ASYNC, FEW, SYNC, Flavour, Observer, only
from support.hooking import OurError, on_commit
from support.models import add_item
from unitwork import DBSessionMiddleware, SessionEndedError, UnitOfWork, current_unit

pytestmark = pytest.mark.anyio


@pytest.fixture
async def narrow(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database with one connection, and no patience."""
    narrow = flavour.another(pool_size=1, max_overflow=0, pool_timeout=1)
    yield narrow
    await check_nothing_is_left(narrow)
    await narrow.dispose()


def adds_item(flavour: Flavour, name: str) -> Callable[[], Any]:
    """A hook that adds an item in a unit of its own."""
    if flavour.is_async:
        return partial(flavour.work, partial(add_item, name=name))

    def add() -> None:
        with flavour.db.transaction() as session:
            add_item(session, name)

    return add


# The database in a hook


async def test_may_use_the_database_as_the_only_connection_is_back(
    narrow: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        on_commit(adds_item(narrow, "by the hook"))

    for serve in (narrow.work, partial(request, narrow)):
        await serve(body)
        assert observer.names() == ["one", "by the hook"]
        await narrow.work(forget)


async def test_on_rollback_may_use_the_database_too(
    narrow: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        current_unit().on_rollback(adds_item(narrow, "by the hook"))
        current_unit().rollback_only()

    for serve in (narrow.work, partial(request, narrow)):
        await serve(body)
        assert observer.names() == ["by the hook"]
        await narrow.work(forget)


async def test_before_commit_writes_inside_the_transaction(
    narrow: Flavour, observer: Observer
) -> None:
    async def later() -> None:
        await narrow.do(narrow.db.current, partial(add_item, name="by the hook"))

    def body(session: Session) -> None:
        add_item(session)
        current_unit().before_commit(
            later if narrow.is_async else lambda: add_item(session, "by the hook")
        )

    for serve in (narrow.work, partial(request, narrow)):
        await serve(body)
        assert observer.names() == ["one", "by the hook"]
        await narrow.work(forget)


async def test_can_not_use_the_session_whose_work_is_done(
    narrow: Flavour, observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        on_commit(lambda: session.connection())
        on_commit(lambda: add_item(session, "late"))

    for serve in (narrow.work, partial(request, narrow)):
        caplog.clear()
        await serve(body)
        assert failures(caplog) == [SessionEndedError] * 2
        assert "db.transaction()" in caplog.text
        assert observer.names() == ["one"]
        await narrow.work(forget)


async def test_can_not_begin_with_a_session_that_was_not_used_before(
    narrow: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    def body(session: Session) -> None:
        on_commit(lambda: session.connection())

    await narrow.work(body)

    assert failures(caplog) == [SessionEndedError]


async def test_can_not_use_a_session_that_nobody_asked_for_before(
    narrow: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    async def hook() -> None:
        await narrow.do(narrow.db.current, add_item)

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        on_commit(hook)
        await Response()(scope, receive, send)

    reply = await call(DBSessionMiddleware(bare, narrow.db), "POST", "/")

    assert reply.status == 200
    assert failures(caplog) == [SessionEndedError]


async def test_are_called_once_and_leave_the_session_to_the_body_of_the_response(
    narrow: Flavour, observer: Observer, done: list[str]
) -> None:
    async def stream(scope: Any, receive: Any, send: Any) -> None:
        add = partial(narrow.do, narrow.db.current)
        await add(partial(add_item, name="before"))
        on_commit(done.append, "once")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await add(partial(add_item, name="after"))
        await send({"type": "http.response.body", "body": b""})

    reply = await call(DBSessionMiddleware(stream, narrow.db), "POST", "/")

    assert (reply.error, observer.names()) == (None, ["before", "after"])
    assert done == ["once"]


def forget(session: Session) -> None:
    """Delete every item."""
    session.connection().exec_driver_sql("DELETE FROM item")


def failures(caplog: pytest.LogCaptureFixture) -> list[type | None]:
    """The kinds of error that were logged."""
    return [r.exc_info[0] for r in caplog.records if r.exc_info is not None]


async def request(flavour: Flavour, body: Body) -> None:
    """Run *body* in a request, as `Flavour.work` runs it in a block."""
    reply = await call(serve_fastapi(flavour, body), "POST", "/")
    assert (reply.status, reply.error) == (200, None)


# In which thread


async def test_plain_functions_of_a_request_run_off_the_event_loops_thread(
    flavour: Flavour,
) -> None:
    threads: list[int] = []

    def note() -> None:
        threads.append(threading.get_ident())

    def body(session: Session) -> None:
        add_item(session)
        unit = current_unit()
        unit.before_commit(note)
        unit.on_commit(note)

    await request(flavour, body)

    assert len(threads) == 2
    assert threading.get_ident() not in threads


@FEW
async def test_coroutine_functions_of_a_request_are_awaited_on_the_event_loop(
    flavour: Flavour, done: list[str]
) -> None:
    async def note(what: str) -> None:
        await asyncio.sleep(0)
        done.append(f"{what} {threading.get_ident()}")

    def body(session: Session) -> None:
        add_item(session)
        current_unit().before_commit(note, "before")
        current_unit().on_commit(note, "after")

    await request(flavour, body)

    here = threading.get_ident()
    assert done == [f"before {here}", f"after {here}"]


@FEW
async def test_a_plain_function_may_return_something_to_await(
    flavour: Flavour, done: list[str]
) -> None:
    async def note() -> None:
        done.append("awaited")

    await request(flavour, lambda session: on_commit(lambda: note()))

    assert done == ["awaited"]


@only(*SYNC)
async def test_of_a_sync_block_run_in_its_own_thread(flavour: Flavour) -> None:
    threads: list[int] = []

    def body(session: Session) -> None:
        threads.append(threading.get_ident())
        on_commit(lambda: threads.append(threading.get_ident()))

    await flavour.work(body)

    assert threads[0] == threads[1]


@only(*ASYNC)
async def test_plain_functions_of_an_async_block_run_off_the_event_loops_thread(
    flavour: Flavour,
) -> None:
    threads: list[int] = []
    note = lambda: threads.append(threading.get_ident())  # noqa: E731

    await flavour.work(lambda session: on_commit(note))

    assert threading.get_ident() not in threads


@FEW
async def test_are_called_with_their_arguments(flavour: Flavour) -> None:
    called: list[Any] = []

    def hook(*args: object, **kwargs: object) -> None:
        called.append((args, kwargs))

    await flavour.work(lambda s: current_unit().on_commit(hook, 1, two=2))

    assert called == [((1,), {"two": 2})]


@FEW
async def test_see_the_unit_to_which_they_belong(flavour: Flavour) -> None:
    seen: list[UnitOfWork] = []

    def body(session: Session) -> None:
        seen.append(current_unit())
        on_commit(lambda: seen.append(current_unit()))

    await flavour.work(body)

    assert seen[0] is seen[1]


# In which context


@only("psycopg-async", "asyncpg")
async def test_a_hook_finds_its_own_unit_whatever_block_is_open(
    flavour: Flavour, done: list[str]
) -> None:
    """A dependency with `yield` may hold a block open while the response is sent."""

    sessions: list[AsyncSession] = []

    async def hook() -> None:
        done.append("its own" if flavour.db.current is sessions[0] else "the block's")

    async def registers() -> None:
        current_unit().before_commit(hook)

    async def holds_a_block() -> AsyncIterator[None]:
        async with flavour.db.transaction(read_only=True):
            yield

    app = serve_fastapi(flavour, add_item)

    @app.post("/beside", dependencies=[Depends(registers), Depends(holds_a_block)])
    async def endpoint(request: Request) -> None:
        sessions.append(await flavour.db.session(request))
        await flavour.do(sessions[0], add_item)

    reply = await call(app, "POST", "/beside")

    assert (reply.status, done) == (200, ["its own"])


@FEW
async def test_a_tests_session_drops_hooks_with_their_savepoint_as_well(
    flavour: Flavour, done: list[str]
) -> None:
    factory: Any = AsyncSession if flavour.is_async else Session
    theirs = factory(flavour.db.engine)

    def body(session: Session) -> None:
        with suppress(OurError), session.begin_nested():
            add_item(session)
            on_commit(done.append, "inside")
            raise OurError
        on_commit(done.append, "outside")

    with flavour.db.override(theirs):
        await call(serve_fastapi(flavour, body), "POST", "/")
    await flavour.do(theirs, lambda session: session.close())

    assert done == ["outside"]
