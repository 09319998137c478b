"""`Database.override()`: a session of a test in place of those of the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy import event, make_url
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, sessionmaker
from starlette.requests import Request

from support.asgi import call
from support.engines import over
from support.flavours import POSTGRESQL, Flavour, Observer, only
from support.models import add_item, names
from unitwork import (
    AsyncDatabase,
    Database,
    DBSessionMiddleware,
    UsageError,
    current_unit,
)

pytestmark = pytest.mark.anyio

one_of_each = only("sqlite3", "aiosqlite")


@asynccontextmanager
async def isolated(flavour: Flavour) -> AsyncIterator[Any]:
    """A session as tests use it: whatever it commits is taken back."""
    options: dict[str, Any] = {
        "join_transaction_mode": "create_savepoint",
        "expire_on_commit": False,
    }
    if flavour.is_async:
        async with flavour.db.engine.connect() as line, line.begin() as outermost:
            async with AsyncSession(line, **options) as session:
                yield session
            await outermost.rollback()
    else:
        with flavour.db.engine.connect() as line, line.begin() as outermost:
            with Session(line, **options) as session:
                yield session
            outermost.rollback()


@pytest.fixture
def app(flavour: Flavour) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(flavour.endpoint(lambda session: add_item(session).id))
    app.get("/")(flavour.endpoint(names))

    def fail(session: Session) -> None:
        add_item(session, "dropped")
        raise HTTPException(409)

    app.post("/fails")(flavour.endpoint(fail))
    return app


async def test_override_gives_the_session_in_all_four_ways(
    flavour: Flavour, app: FastAPI
) -> None:
    found: list[Any] = []

    @app.get("/four")
    async def endpoint(request: Request) -> None:
        found.append(request.state.db)
        found.append(await flavour.db.session(request))
        found.append(await flavour.db.session())
        found.append(flavour.db.current)

    async with isolated(flavour) as session:
        with flavour.db.override(session):
            reply = await call(app, "GET", "/four")

    assert (reply.status, reply.error) == (200, None)
    assert found == [session] * 4


async def test_override_gives_the_session_to_blocks_and_dependencies(
    flavour: Flavour, app: FastAPI
) -> None:
    async with isolated(flavour) as session:
        with flavour.db.override(session):
            await flavour.work(add_item)
            reply = await call(app, "GET", "/")

        assert reply.json == ["one"]
        assert await flavour.do(session, names) == ["one"]


async def test_units_commit_an_overriding_session_but_leave_it_open(
    flavour: Flavour, app: FastAPI
) -> None:
    async with isolated(flavour) as session:
        commits: list[object] = []
        sync_session = getattr(session, "sync_session", session)
        event.listen(sync_session, "after_commit", commits.append)
        with flavour.db.override(session):
            kept = await flavour.do(session, partial(add_item, name="kept"))
            await call(app, "POST", "/")

        assert commits == [sync_session]
        assert not session.in_transaction()
        assert kept in session
        await flavour.do(session, partial(add_item, name="two"))
        assert await flavour.do(session, names) == ["kept", "one", "two"]


async def test_units_roll_an_overriding_session_back_but_leave_it_open(
    flavour: Flavour, app: FastAPI
) -> None:
    async with isolated(flavour) as session:
        with flavour.db.override(session):
            await call(app, "POST", "/")
            reply = await call(app, "POST", "/fails")

        assert reply.status == 409
        assert await flavour.do(session, names) == ["one"]


async def test_override_isolates_a_test(
    flavour: Flavour, app: FastAPI, observer: Observer
) -> None:
    for _ in range(2):
        async with isolated(flavour) as session:
            with flavour.db.override(session):
                assert (await call(app, "POST", "/")).status == 200
                assert (await call(app, "GET", "/")).json == ["one"]
        assert observer.names() == []


async def test_hooks_run_on_an_overriding_session_too(flavour: Flavour) -> None:
    done: list[str] = []

    def body(session: Session) -> None:
        add_item(session)
        current_unit().on_commit(done.append, "committed")

    async with isolated(flavour) as session:
        with flavour.db.override(session):
            await flavour.work(body)

    assert done == ["committed"]


@one_of_each
async def test_overrides_may_be_nested(flavour: Flavour) -> None:
    kind: Any = AsyncSession if flavour.is_async else Session
    outer, inner = kind(), kind()

    async def current() -> Any:
        found: list[Any] = []
        await flavour.work(lambda session: found.append(flavour.db.current))
        return found[0]

    with flavour.db.override(outer):
        with flavour.db.override(inner):
            assert await current() is inner
        assert await current() is outer
    assert await current() not in (inner, outer)


@one_of_each
async def test_an_override_ends_when_its_block_raises(flavour: Flavour) -> None:
    kind: Any = AsyncSession if flavour.is_async else Session

    with pytest.raises(LookupError), flavour.db.override(kind()):
        raise LookupError

    await flavour.work(lambda session: names(session))


@pytest.mark.parametrize(
    ("kind", "url", "wrong"),
    [
        (Database, "sqlite://", AsyncSession()),
        (AsyncDatabase, "sqlite+aiosqlite://", Session()),
        (Database, "sqlite://", "session"),
        (Database, "sqlite://", sessionmaker()),
        (AsyncDatabase, "sqlite+aiosqlite://", None),
    ],
)
def test_override_refuses_what_is_no_session_of_its_flavour(
    kind: Any, url: str, wrong: Any
) -> None:
    db = kind(url)

    with pytest.raises(UsageError, match="can't be given"), db.override(wrong):
        pytest.fail("it was accepted")


async def test_a_dependency_override_replaces_the_session_of_its_endpoints_alone(
    flavour: Flavour, app: FastAPI, observer: Observer
) -> None:
    async with isolated(flavour) as session:
        app.dependency_overrides[flavour.db.session] = lambda: session
        reply = await call(app, "POST", "/")

        assert reply.status == 200
        assert session.in_transaction()  # it was not committed
        assert await flavour.do(session, names) == ["one"]
    app.dependency_overrides.clear()

    assert observer.names() == []
    assert (await call(app, "POST", "/")).status == 200
    assert observer.names() == ["one"]


@only(*POSTGRESQL)
async def test_one_that_can_not_be_reached_fails_when_it_is_used(
    flavour: Flavour, tmp_path: Path
) -> None:
    nowhere = make_url(flavour.url).set(host=str(tmp_path), port=1)
    made = over(flavour, nowhere)

    with pytest.raises(Exception, match=r"(?i)connect|No such file"):
        await made.work(add_item)

    assert made.db.pool_status().checked_out == 0
