"""Mistakes with an AsyncDatabase and its settings: what was found, what to write."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy import select

from support.asgi import call
from support.mistakes import Item, Owner, World, said
from unitwork import (
    AsyncDatabase,
    DBSessionMiddleware,
    UsageError,
    current_unit,
    transactional,
)
from unitwork.events import FailureLog

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited"),
]


@pytest.fixture
def asynchronous(world: World) -> World:
    """The world with one database, an async one."""
    world.app = FastAPI()
    world.app.add_middleware(DBSessionMiddleware, db=world.db)
    return world


async def test_await_of_a_method_that_is_not_awaited(asynchronous: World) -> None:
    async def endpoint() -> None:
        await asynchronous.db.current.add(Owner())  # type: ignore[func-returns-value]

    message = await asynchronous.said_by(endpoint)

    assert "leave that `await` out: add(), add_all()" in message
    assert "AsyncDatabase" not in message


async def test_await_of_a_block(asynchronous: World) -> None:
    async def endpoint() -> None:
        _ = asynchronous.db.current
        await asynchronous.db.transaction()  # type: ignore[misc]

    message = await asynchronous.said_by(endpoint)

    assert "A block is `async with db.transaction() as session:`" in message


async def test_query_of_an_async_session(asynchronous: World) -> None:
    async def endpoint() -> None:
        asynchronous.db.current.query(Item)  # type: ignore[attr-defined]

    message = await asynchronous.said_by(endpoint)

    assert "`(await session.scalars(select(...))).all()`" in message


async def test_async_for_over_what_is_not_awaited(asynchronous: World) -> None:
    async def endpoint() -> None:
        async for _ in asynchronous.db.current.scalars(select(Item)):  # type: ignore[attr-defined]
            pass

    assert "an `await` is missing" in await asynchronous.said_by(endpoint)


async def test_no_await_before_what_is_returned(asynchronous: World) -> None:
    async def endpoint(request: Request) -> Any:
        found = asynchronous.db.current.scalar(select(1))
        return JSONResponse(found) if "starlette" in request.url.path else found

    asynchronous.app.get("/fastapi", response_model=int)(endpoint)
    asynchronous.app.get("/starlette")(endpoint)

    for path in ("/fastapi", "/starlette"):
        error = (await call(asynchronous.app, "GET", path)).error
        assert "an `await` is missing" in said(error)


async def test_the_dependency_as_a_block(asynchronous: World) -> None:
    async def endpoint() -> None:
        _ = asynchronous.db.current
        async with asynchronous.db.session():  # type: ignore[attr-defined]
            pass

    message = await asynchronous.said_by(endpoint)

    assert "`async with db.transaction() as session:`" in message


async def test_a_coroutine_as_a_hook(asynchronous: World) -> None:
    async def send_mail(to: str) -> None: ...

    async def endpoint() -> None:
        current_unit().on_commit(send_mail("ada"))  # type: ignore[arg-type]

    message = await asynchronous.said_by(endpoint)

    assert "send_mail() was called already" in message
    assert "`unit.on_commit(send_mail, ...)`" in message


async def test_two_objects_for_one_database(asynchronous: World) -> None:
    again = AsyncDatabase(asynchronous.db.engine)

    async def endpoint() -> None:
        _ = again.current

    message = await asynchronous.said_by(endpoint)

    assert "no unit of work for database 'default' here, only for 'default'" in message
    assert "import one and the same object everywhere" in message


async def test_a_setting_as_an_option_of_the_engine() -> None:
    with pytest.raises(UsageError, match=r"write settings=DatabaseSettings\(end_tim"):
        AsyncDatabase("sqlite+aiosqlite://", end_timeout=3)


async def test_settings_that_are_a_dictionary() -> None:
    given: Any = {"end_timeout": 3}

    with pytest.raises(UsageError, match="settings is an object of type"):
        AsyncDatabase("sqlite+aiosqlite://", settings=given)


async def test_a_driver_that_is_misspelled() -> None:
    with pytest.raises(UsageError, match=r"'postgresql\+asynpg'; write .*\+asyncpg or"):
        AsyncDatabase("postgresql+asynpg://h/d")


async def test_a_number_as_the_policy_of_retries(asynchronous: World) -> None:
    asynchronous.app.user_middleware.clear()
    asynchronous.app.add_middleware(DBSessionMiddleware, db=asynchronous.db, retry=3)  # type: ignore[arg-type]

    message = await asynchronous.said_by(lambda: None)

    assert "retry is 3; give a RetryPolicy" in message
    assert "attempts" in message


async def test_a_class_as_an_observer(asynchronous: World) -> None:
    with pytest.raises(UsageError, match="FailureLog'>; give an object"):
        asynchronous.db.observe(FailureLog)  # type: ignore[arg-type]


async def test_transactional_without_parentheses() -> None:
    async def endpoint() -> None: ...

    with pytest.raises(UsageError, match=r"such as @transactional\(read_only=True\)"):
        transactional(endpoint)  # type: ignore[arg-type]
