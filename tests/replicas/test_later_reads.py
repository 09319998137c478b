"""Reads after the response, and of another attempt, see the client's writes as well."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI
from sqlalchemy import text
from sqlalchemy.orm import Session

from servers.postgresql_replication import Replication
from support.flavours import Flavour
from support.models import add_item, names
from support.replicated import SECRET
from unitwork import DBSessionMiddleware, current_unit, transactional
from unitwork.replicas import SignedCookie

pytestmark = pytest.mark.anyio


def app_of(flavour: Flavour) -> FastAPI:
    app = FastAPI()
    carrier = SignedCookie(SECRET)
    app.add_middleware(DBSessionMiddleware, db=flavour.db, read_your_writes=carrier)
    app.post("/items")(flavour.endpoint(lambda session: add_item(session).id))
    app.get("/items")(transactional(read_only=True)(flavour.endpoint(names)))
    return app


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def pause_all(replication: Replication) -> None:
    for i in range(len(replication.replica_urls)):
        replication.pause(i)


@pytest.mark.parametrize("uses_session", [True, False])
async def test_a_background_task_sees_what_the_client_has_written_before(
    replicated: Flavour, replication: Replication, uses_session: bool
) -> None:
    app, found = app_of(replicated), []

    async def read_later() -> None:
        found.append(await replicated.work(names, read_only=True))

    uses = {True: names, False: lambda session: None}[uses_session]

    @app.post("/later")
    async def later(tasks: BackgroundTasks) -> None:
        await replicated.work(uses, read_only=True)
        tasks.add_task(read_later)

    pause_all(replication)
    async with client_of(app) as client:
        await client.post("/items")
        await client.post("/later")

    assert found == [["one"]]


async def test_a_background_task_sees_what_its_request_has_written(
    replicated: Flavour, replication: Replication
) -> None:
    app, found = app_of(replicated), []

    async def read_later() -> None:
        found.append(await replicated.work(names, read_only=True))

    @app.post("/later")
    async def later(tasks: BackgroundTasks) -> None:
        await replicated.work(add_item)
        tasks.add_task(read_later)

    pause_all(replication)
    async with client_of(app) as client:
        await client.post("/later")

    assert found == [["one"]]


async def test_what_a_hook_of_an_earlier_attempt_has_stored_is_seen(
    replicated: Flavour, replication: Replication
) -> None:
    """It is stored, though the attempt was rolled back and run again."""
    app = app_of(replicated)
    attempts: list[Any] = [None]

    async def note() -> None:
        await replicated.work(lambda session: add_item(session, "failed"))

    def write(session: Session) -> None:
        for _ in range(len(attempts)):
            attempts.pop()
            add_item(session)
            current_unit().on_rollback(note)
            session.execute(text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))

    app.post("/work")(transactional(attempts=2)(replicated.endpoint(write)))
    pause_all(replication)
    async with client_of(app) as client:
        reply = await client.post("/work")
        assert (reply.status_code, attempts) == (200, [])
        assert (await client.get("/items")).json() == ["failed"]
