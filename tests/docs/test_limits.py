"""What the page of questions and limits says is so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.middleware.cors import CORSMiddleware
from fastapi.testclient import TestClient
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from support.manual import Page
from support.pages import postgresql
from unitwork import (
    AsyncDatabase,
    DBSessionMiddleware,
    UnexpectedRollbackError,
    current_unit,
)


def test_keeps_what_was_committed_by_hand(page: Page) -> None:
    main = page.run()

    with TestClient(main.app) as client:
        reply = client.post("/half")
        stored = client.portal.call(main.stored)  # type: ignore[union-attr]  # inside of `with`

    assert (reply.status_code, stored) == (400, ["committed by hand"])


def test_as_the_innermost_its_errors_pass_through_the_others(page: Page) -> None:
    main = page.run()
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=main.db)
    app.add_middleware(CORSMiddleware, allow_origins=["*"])

    def refuse() -> None:
        raise HTTPException(409)

    @app.post("/")
    async def refused() -> None:
        main.db.current.add(main.Item(name="refused"))
        current_unit().before_commit(refuse)

    with TestClient(app) as client:
        reply = client.post("/", headers={"origin": "http://there"})

    assert reply.status_code == 409
    assert reply.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(("name", "stored"), [("inside", []), ("between", ["sold"])])
def test_sees_exceptions_unless_a_middleware_is_between(
    page: Page, name: str, stored: list[str]
) -> None:
    main = page.run()

    with TestClient(getattr(main, name)) as client:
        assert client.post("/").status_code == 200
        assert client.portal.call(main.stored) == stored  # type: ignore[union-attr]  # inside of `with`


async def stored_by(main: ModuleType, url: str, add: Callable[..., Any]) -> list[str]:
    """What is stored after *add* has added an item that is there already."""
    db = AsyncDatabase(url)
    async with db.engine.begin() as connection:
        await connection.run_sync(main.Base.metadata.create_all)
    try:
        async with db.transaction() as session:
            session.add(main.Item(id=1, name="first"))
            await session.flush()
            await add(session, 1)
        async with db.transaction() as session:
            return list(await session.scalars(select(main.Item.name)))
    finally:
        await db.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_savepoint_contains_an_error_on_postgresql(page: Page, driver: str) -> None:
    main = page.run()

    async def add_without_savepoint(session: Any, item_id: int) -> None:
        with contextlib.suppress(IntegrityError):
            await session.execute(insert(main.Item).values(id=item_id, name="once"))

    with postgresql(driver) as url:
        assert asyncio.run(stored_by(main, url, main.add_once)) == ["first"]
    with postgresql(driver) as url, pytest.raises(UnexpectedRollbackError):
        asyncio.run(stored_by(main, url, add_without_savepoint))
