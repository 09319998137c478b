"""`session.commit()` in another task or thread than the block that is open."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from threading import Event

import pytest
from anyio import to_thread
from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only
from starlette.middleware.base import BaseHTTPMiddleware

from support.asgi import call
from support.flavours import ASYNC, SYNC, Flavour, Observer, only
from support.models import Item, add_item
from unitwork import DBSessionMiddleware, UnexpectedRollbackError, UsageError

pytestmark = pytest.mark.anyio


@only(*ASYNC)
async def test_a_task_that_the_block_has_started_may_commit(
    flavour: Flavour, observer: Observer
) -> None:
    join = flavour.db.transaction(nested="join")
    async with flavour.db.transaction() as session, join:
        await session.run_sync(add_item)
        await asyncio.create_task(session.commit())  # as `asyncio.wait_for()` does
        assert observer.names() == ["one"]


@only(*SYNC)
@pytest.mark.filterwarnings("ignore::unitwork.BlockingSessionWarning")
async def test_a_thread_that_the_block_has_started_may_commit(
    flavour: Flavour, observer: Observer
) -> None:
    with flavour.db.transaction() as session, flavour.db.transaction(nested="join"):
        await to_thread.run_sync(add_item, session)
        await to_thread.run_sync(session.commit)
        assert observer.names() == ["one"]


@only(*ASYNC)
@pytest.mark.parametrize("has_middleware", [False, True])
@pytest.mark.parametrize("nested", ["begin_nested", "savepoint", "join"])
async def test_a_task_started_before_may_not_commit(
    flavour: Flavour, observer: Observer, has_middleware: bool, nested: str
) -> None:
    """The endpoint's own block is not waited for, but it is not stored by halves."""
    app = FastAPI()
    if has_middleware:
        app.add_middleware(
            BaseHTTPMiddleware, dispatch=lambda request, next: next(request)
        )
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    async def commit(session: AsyncSession, is_open: asyncio.Event) -> None:
        await is_open.wait()
        with pytest.raises(UsageError, match="would store half"):
            await session.commit()

    @app.post("/")
    async def create() -> None:
        session, is_open = flavour.db.current, asyncio.Event()
        task = asyncio.create_task(commit(session, is_open))
        blocks = {"begin_nested": session.begin_nested}
        begin = blocks.get(nested, lambda: flavour.db.transaction(nested=nested))
        with suppress(LookupError):
            async with begin():
                await session.run_sync(add_item)
                is_open.set()
                await task
                raise LookupError

    assert (await call(app, "POST", "/")).status == 500
    assert observer.names() == []


@only(*SYNC)
async def test_a_thread_beside_a_savepoint_may_not_commit(
    flavour: Flavour, observer: Observer
) -> None:
    is_open, go_on = Event(), Event()

    def fail(session: Session) -> None:
        with suppress(LookupError), session.begin_nested():
            add_item(session, "undone")
            is_open.set()
            go_on.wait()
            raise LookupError

    async def commit_beside() -> None:
        async with flavour.block() as session:
            task = asyncio.create_task(to_thread.run_sync(fail, session))
            await to_thread.run_sync(is_open.wait)
            with pytest.raises(UsageError, match="would store half"):
                await to_thread.run_sync(session.commit)
            go_on.set()
            await task

    with pytest.raises(UnexpectedRollbackError):
        await commit_beside()
    assert observer.names() == []


@only(*SYNC)
async def test_a_thread_may_commit_with_a_savepoint_that_no_block_has_left_open(
    flavour: Flavour, observer: Observer
) -> None:
    async with flavour.block() as session:
        await to_thread.run_sync(session.begin_nested)
        await to_thread.run_sync(add_item, session)
        await to_thread.run_sync(session.commit)

    assert observer.names() == ["one"]


@only(*ASYNC)
@pytest.mark.parametrize("fails", [True, False])
async def test_nor_beside_a_savepoint_of_the_connection(
    flavour: Flavour, observer: Observer, fails: bool
) -> None:
    is_open = asyncio.Event()

    async def commit(session: AsyncSession) -> None:
        await is_open.wait()
        with pytest.raises(UsageError, match="would store half"):
            await session.commit()

    async with flavour.db.transaction() as session:
        task = asyncio.create_task(commit(session))
        connection = await session.connection()
        with suppress(LookupError):
            async with connection.begin_nested():
                await session.run_sync(add_item)
                is_open.set()
                await task
                if fails:
                    raise LookupError

    assert observer.names() == ([] if fails else ["one"])


@only(*ASYNC)
async def test_nor_beside_a_flush(flavour: Flavour, observer: Observer) -> None:
    """SQLAlchemy's commit would not flush then."""
    is_flushing, go_on = asyncio.Event(), asyncio.Event()

    def wait(*arguments: object) -> None:
        is_flushing.set()
        await_only(go_on.wait())

    async with flavour.db.transaction() as session:
        await session.connection()
        event.listen(session.sync_session, "before_flush", wait, once=True)
        session.add(Item(name="first"))
        task = asyncio.create_task(session.flush())
        await is_flushing.wait()
        session.add(Item(name="second"))
        with pytest.raises(IllegalStateChangeError, match="would not flush"):
            await session.commit()
        go_on.set()
        await task

    assert sorted(observer.names()) == ["first", "second"]
