"""Hooks around the end of a unit: what is called, in which order, and what drops it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from fastapi import Depends, HTTPException, Request
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.responses import Response

from support.asgi import call
from support.cancelling import KINDS, Kind, at_each_suspension
from support.databases import check_nothing_is_left
from support.endpoints import Body, serve_fastapi
from support.flavours import ASYNC, SYNC, Flavour, Observer, only
from support.models import Item, add_item, add_orphan
from unitwork import (
    AsyncDatabase,
    Database,
    DBSessionMiddleware,
    MissingSessionError,
    Outcome,
    SessionEndedError,
    UnitOfWork,
    UsageError,
    current_unit,
)

pytestmark = pytest.mark.anyio

FEW = only("sqlite3", "asyncpg")
"""Enough where no driver has a say; sync and async, and both databases."""


class OurError(Exception):
    pass


@pytest.fixture
def done() -> list[str]:
    """What the hooks of a test have noted."""
    return []


@pytest.fixture
async def narrow(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database with one connection, and no patience."""
    narrow = flavour.another(pool_size=1, max_overflow=0, pool_timeout=1)
    yield narrow
    await check_nothing_is_left(narrow)
    await narrow.dispose()


def on_commit(hook: Callable[..., object], *args: object) -> None:
    current_unit().on_commit(hook, *args)


def adds_item(flavour: Flavour, name: str) -> Callable[[], Any]:
    """A hook that adds an item in a unit of its own."""
    if flavour.is_async:
        return partial(flavour.work, partial(add_item, name=name))

    def add() -> None:
        with flavour.db.transaction() as session:
            add_item(session, name)

    return add


def fail() -> None:
    raise OurError


# When they are called


async def test_is_called_when_no_transaction_was_begun(
    flavour: Flavour, done: list[str]
) -> None:
    await flavour.work(lambda s: on_commit(done.append, "here"))

    assert done == ["here"]


async def test_is_not_called_before_commit(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        on_commit(lambda: done.extend(observer.names()))
        assert done == []

    await flavour.work(body)

    assert done == ["one"]


async def test_is_dropped_when_the_unit_is_rolled_back(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        on_commit(done.append, "dropped")
        current_unit().before_commit(done.append, "dropped")
        raise OurError

    with pytest.raises(OurError):
        await flavour.work(body)

    assert done == []


async def test_is_dropped_when_commit_fails(flavour: Flavour, done: list[str]) -> None:
    def body(session: Session) -> None:
        add_orphan(session)
        on_commit(done.append, "dropped")
        current_unit().on_rollback(done.append, "rolled back")

    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await flavour.work(body)

    assert done == ["rolled back"]


async def test_is_called_after_the_outermost_transaction_only(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        with session.begin_nested():
            with session.begin_nested():
                add_item(session)
                on_commit(lambda: done.extend(observer.names()))
            assert done == []
        assert done == []

    await flavour.work(body)

    assert done == ["one"]


@pytest.mark.parametrize("in_request", [False, True])
async def test_is_called_if_the_flush_of_commit_is_the_first_to_register_one(
    flavour: Flavour, done: list[str], in_request: bool
) -> None:
    def body(session: Session) -> None:
        event.listen(
            session, "before_flush", lambda *args: on_commit(done.append, "committed")
        )
        session.add(Item(name="one"))

    if in_request:
        await call(serve_fastapi(flavour, body), "POST", "/")
    else:
        await flavour.work(body)

    assert done == ["committed"]


async def test_is_dropped_with_its_savepoint(flavour: Flavour, done: list[str]) -> None:
    def body(session: Session) -> None:
        on_commit(done.append, "before")
        with suppress(OurError), session.begin_nested():
            on_commit(done.append, "inside")
            current_unit().before_commit(done.append, "inside")
            raise OurError
        on_commit(done.append, "after")

    await flavour.work(body)

    assert done == ["before", "after"]


async def test_is_dropped_with_the_savepoint_around_its_own(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        with session.begin_nested():
            on_commit(done.append, "first")
        with suppress(OurError), session.begin_nested():
            with session.begin_nested():
                on_commit(done.append, "inner")
            raise OurError

    await flavour.work(body)

    assert done == ["first"]


async def test_outlives_the_savepoint_inside_its_own(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        with session.begin_nested():
            on_commit(done.append, "outer")
            with suppress(OurError), session.begin_nested():
                on_commit(done.append, "inner")
                raise OurError

    await flavour.work(body)

    assert done == ["outer"]


async def test_of_a_joined_block_belongs_to_the_unit_around(
    flavour: Flavour, done: list[str]
) -> None:
    async def unit() -> None:
        await flavour.work(lambda s: on_commit(done.append, "joined"), nested="join")
        done.append("around")

    await around(flavour, unit)

    assert done == ["around", "joined"]


async def test_of_a_savepoint_block_is_dropped_with_it(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        on_commit(done.append, "inner")
        raise OurError

    async def unit() -> None:
        with pytest.raises(OurError):
            await flavour.work(body, nested="savepoint")
        on_commit(done.append, "outer")

    await around(flavour, unit)

    assert done == ["outer"]


async def test_of_a_block_of_its_own_is_called_at_once(
    flavour: Flavour, done: list[str]
) -> None:
    async def unit() -> None:
        await flavour.work(lambda s: on_commit(done.append, "inner"), nested="own")
        done.append("outer")

    await around(flavour, unit)

    assert done == ["inner", "outer"]


async def around(flavour: Flavour, inner: Callable[[], Any]) -> None:
    """Run *inner* in the unit of a request."""
    app = serve_fastapi(flavour, lambda s: None)
    app.get("/around")(inner)
    reply = await call(app, "GET", "/around")
    assert (reply.status, reply.error) == (200, None)


# In which order


async def test_are_called_in_the_order_in_which_they_were_registered(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        on_commit(done.append, "one")
        add_item(session)
        with session.begin_nested():
            on_commit(done.append, "two")
        on_commit(done.append, "three")
        current_unit().before_commit(done.append, "zero")

    await flavour.work(body)

    assert done == ["zero", "one", "two", "three"]


@FEW
async def test_may_register_others_which_come_last(
    flavour: Flavour, done: list[str]
) -> None:
    def first() -> None:
        done.append("first")
        on_commit(done.append, "third")

    def body(session: Session) -> None:
        on_commit(first)
        on_commit(done.append, "second")

    await flavour.work(body)

    assert done == ["first", "second", "third"]


@FEW
async def test_of_before_commit_may_register_any(
    flavour: Flavour, done: list[str]
) -> None:
    def check() -> None:
        current_unit().before_commit(done.append, "before")
        current_unit().on_commit(done.append, "after")

    def body(session: Session) -> None:
        add_item(session)
        current_unit().before_commit(check)

    await flavour.work(body)

    assert done == ["before", "after"]


async def test_on_rollback_are_called_after_the_rollback(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        current_unit().on_rollback(done.append, "first")
        current_unit().on_rollback(lambda: done.extend(observer.names()))
        raise OurError

    with pytest.raises(OurError):
        await flavour.work(body)

    assert done == ["first"]


async def test_on_rollback_are_not_called_after_a_commit(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        current_unit().on_rollback(done.append, "never")

    await flavour.work(body)

    assert done == []


@only("aiosqlite", "psycopg-async")  # asyncpg complains of a TLS that is cancelled
@pytest.mark.parametrize("kind", KINDS)
async def test_on_rollback_are_called_at_whichever_suspension_a_block_is_cancelled(
    flavour: Flavour, done: list[str], kind: Kind
) -> None:
    async def refuse() -> None:
        raise OurError

    async def block(k: int) -> None:
        done.clear()
        with suppress(OurError):
            async with flavour.db.transaction() as session:
                current_unit().on_rollback(done.append, f"rolled back {k}")
                current_unit().before_commit(refuse)
                await flavour.do(session, add_item)

    await flavour.work(partial(add_item, name="before"))  # there is a connection now
    async for k in at_each_suspension(block, kind):
        assert done == [f"rolled back {k}"]


async def test_on_rollback_outlive_a_savepoint(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        with suppress(OurError), session.begin_nested():
            current_unit().on_rollback(done.append, "told")
            raise OurError
        current_unit().rollback_only()

    await flavour.work(body)

    assert done == ["told"]


# Once, and never again


@FEW
async def test_are_forgotten_with_their_unit(flavour: Flavour, done: list[str]) -> None:
    def committed(session: Session) -> None:
        on_commit(done.append, "committed")

    def rolled_back(session: Session) -> None:
        add_item(session)
        on_commit(done.append, "rolled back")
        current_unit().rollback_only()

    for body in (committed, rolled_back, committed):
        await flavour.work(body)

    assert done == ["committed", "committed"]


# The session's own commit() and rollback() in mid-unit


async def test_are_dropped_when_the_user_rolls_the_session_back(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session, "lost")
        on_commit(done.append, "dropped")
        session.rollback()
        add_item(session, "kept")
        on_commit(done.append, "kept")

    await flavour.work(body)

    assert (done, observer.names()) == (["kept"], ["kept"])


async def test_are_due_once_the_user_has_committed_the_session(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session, "kept")
        on_commit(done.append, "due")
        session.commit()
        add_item(session, "lost")
        on_commit(done.append, "dropped")
        raise HTTPException(400)

    reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert (reply.status, observer.names()) == (400, ["kept"])
    assert done == ["due"]


async def test_are_not_due_for_a_savepoint_that_was_released(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        with session.begin_nested():
            add_item(session)
            on_commit(done.append, "dropped")
        current_unit().rollback_only()

    await flavour.work(body)

    assert done == []


# When they fail


@FEW
@pytest.mark.parametrize("hook", [fail, partial(fail)], ids=["plain", "partial"])
async def test_that_fails_is_logged_and_the_others_are_called(
    flavour: Flavour,
    observer: Observer,
    done: list[str],
    caplog: pytest.LogCaptureFixture,
    hook: Callable[[], None],
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        on_commit(hook)
        on_commit(done.append, "others")

    await flavour.work(body)

    (record,) = [r for r in caplog.records if r.name == "unitwork"]
    assert record.levelno == logging.ERROR
    assert "fail failed" in record.message
    assert (done, observer.names()) == (["others"], ["one"])


@FEW
async def test_that_fails_without_a_transaction_is_logged_too(
    flavour: Flavour, done: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def body(session: Session) -> None:
        on_commit(fail)
        on_commit(done.append, "others")

    await flavour.work(body)

    assert (done, len(caplog.records)) == (["others"], 1)


async def test_that_fails_leaves_the_answer_as_it_was(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    def body(session: Session) -> str:
        add_item(session)
        on_commit(fail)
        return "fine"

    reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert (reply.status, reply.json, reply.complete) == (200, "fine", True)
    assert "OurError" in caplog.text


async def test_that_fails_after_a_rollback_hides_no_error(
    flavour: Flavour, done: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        current_unit().on_rollback(fail)
        current_unit().on_rollback(done.append, "others")
        raise LookupError

    with pytest.raises(LookupError):
        await flavour.work(body)

    assert (done, len(caplog.records)) == (["others"], 1)


async def test_that_fails_before_commit_rolls_everything_back(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        unit = current_unit()
        unit.before_commit(fail)
        unit.before_commit(done.append, "not any more")
        unit.on_commit(done.append, "dropped")
        unit.on_rollback(done.append, "told")

    with pytest.raises(OurError):
        await flavour.work(body)

    assert (done, observer.names()) == (["told"], [])


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


# Misuse


async def coroutine_function() -> None:
    pass


def test_a_sync_block_takes_no_coroutine_function() -> None:
    db = Database("sqlite://")
    with db.transaction():
        unit = current_unit()
        for register in (unit.before_commit, unit.on_commit, unit.on_rollback):
            with pytest.raises(UsageError, match=r"coroutine function.*plain"):
                register(coroutine_function)
            with pytest.raises(UsageError, match="coroutine function"):
                register(partial(coroutine_function))
    db.dispose()


async def test_what_can_not_be_called_is_no_hook() -> None:
    db = AsyncDatabase("sqlite+aiosqlite://")
    async with db.transaction():
        unit = current_unit()
        for register in (unit.before_commit, unit.on_commit, unit.on_rollback):
            with pytest.raises(UsageError, match="must be callable, this is 'text'"):
                register("text")  # type: ignore[arg-type]  # that is the point
    await db.dispose()


def test_there_are_none_outside_of_a_unit() -> None:
    with pytest.raises(MissingSessionError, match="DBSessionMiddleware"):
        current_unit()


# With a commit by hand


@FEW
async def test_a_commit_by_hand_is_one_whatever_comes_later(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        unit = current_unit()
        unit.on_commit(done.append, "committed, first")
        unit.on_rollback(done.append, "rolled back, first")
        add_item(session)
        session.commit()
        unit.on_commit(done.append, "committed, second")
        unit.on_rollback(done.append, "rolled back, second")
        add_item(session, "two")
        raise HTTPException(400)

    await call(serve_fastapi(flavour, body), "POST", "/")

    assert done == ["committed, first", "rolled back, second"]
    assert observer.names() == ["one"]


@FEW
async def test_a_unit_that_was_committed_by_hand_alone_is_not_empty(
    flavour: Flavour, done: list[str]
) -> None:
    units: list[UnitOfWork] = []

    def body(session: Session) -> None:
        units.append(current_unit())
        units[0].on_rollback(done.append, "rolled back")
        add_item(session)
        session.commit()
        raise HTTPException(400)

    await call(serve_fastapi(flavour, body), "POST", "/")

    assert units[0].outcome is Outcome.COMMITTED
    assert (units[0].reason, done) == ("session.commit() was called", [])


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
        async with flavour.db.transaction():
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
