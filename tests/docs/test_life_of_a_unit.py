"""A unit lives as the page says, step by step and state by state."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from support.manual import Page
from unitwork import (
    AsyncDatabase,
    DatabaseSettings,
    DBSessionMiddleware,
    Outcome,
    UnitOfWork,
    current_unit,
)
from unitwork._unit.state import UnitState


@pytest.fixture
def db(page: Page) -> AsyncDatabase[AsyncSession]:
    """A database in the folder of the page."""
    return AsyncDatabase("sqlite+aiosqlite:///items.db")


@pytest.fixture
def app(db: AsyncDatabase[AsyncSession]) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=db)
    return app


def test_shows_the_outcome_and_its_reason(page: Page, app: FastAPI, db: Any) -> None:
    units = list[UnitOfWork]()

    @app.post("/missing")
    async def missing() -> None:
        units.append(current_unit())
        await db.current.execute(text("CREATE TABLE never_stored (id INTEGER)"))
        raise HTTPException(404)

    @app.get("/untouched")
    async def untouched() -> None:
        units.append(current_unit())

    with TestClient(app) as client:
        client.post("/missing")
        client.get("/untouched")

    assert [repr(unit) for unit in units] == re.findall("<UnitOfWork .*>", page.text)


def test_lists_every_state(page: Page) -> None:
    assert re.findall(r"(?m)^\| `([A-Z_]+)` \|", page.text) == [
        x.name for x in UnitState
    ]


def test_names_every_outcome_and_the_time_limits(page: Page) -> None:
    outcomes = page.text.partition("`unit.outcome` is ")[2].partition(".")[0]
    assert re.findall(r"`(\w+)`", outcomes) == [outcome.name for outcome in Outcome]
    limits = set(re.findall(r"`(\w+_timeout)`", page.text))
    assert limits <= {field.name for field in fields(DatabaseSettings)}


def test_takes_its_steps_in_order(app: FastAPI, db: Any) -> None:
    steps = list[str]()
    insert = text("INSERT INTO item VALUES ('lamp')")

    async def dependency() -> AsyncIterator[None]:
        yield
        steps.append("teardown of a dependency")

    @app.post("/", dependencies=[Depends(dependency)])
    async def watched(tasks: BackgroundTasks) -> StreamingResponse:
        session = db.current
        current_unit().before_commit(steps.append, "before_commit")
        current_unit().on_commit(steps.append, "on_commit")
        tasks.add_task(steps.append, "background task")
        await session.execute(insert)
        steps.append("the endpoint returns")

        async def body() -> AsyncIterator[str]:
            yield "first chunk"
            await session.execute(insert)
            yield "second chunk"

        return StreamingResponse(body(), background=tasks)

    engine = db.engine.sync_engine
    with TestClient(_noting(app, steps)) as client:
        client.portal.call(_create_table, db)
        event.listen(engine, "begin", lambda _: steps.append("BEGIN"))
        event.listen(engine, "commit", lambda _: steps.append("COMMIT"))
        event.listen(engine, "checkin", lambda *_: steps.append("connection returned"))
        client.post("/")

    begun = ["BEGIN", "the endpoint returns", "before_commit", "COMMIT"]
    answered = ["connection returned", "on_commit", "the response starts"]
    chunks = ["first chunk", "BEGIN", "second chunk", "COMMIT", "connection returned"]
    after = ["last chunk", "background task", "teardown of a dependency"]
    assert steps == begun + answered + chunks + after


def _noting(app: Any, steps: list[str]) -> Any:
    """The application, and in *steps* the messages that leave it."""

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start":
                steps.append("the response starts")
            elif message["type"] == "http.response.body":
                steps.append(message["body"].decode() or "last chunk")
            await send(message)

        await app(scope, receive, noted if scope["type"] == "http" else send)

    return noting


async def _create_table(db: Any) -> None:
    async with db.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE item (name TEXT)"))
