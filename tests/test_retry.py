"""Retries: the whole request once more, as if it had never run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.orm import Session

from conftest import only
from support.asgi import call
from support.flavours import Flavour, Observer
from support.models import add_item
from unitwork import DBSessionMiddleware, current_unit, transactional

pytestmark = pytest.mark.anyio


def serve(flavour: Flavour, body: Any, **asked: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    endpoint = transactional(**asked)(flavour.endpoint(body))
    app.post("/")(endpoint)
    return app


def count(session: Session) -> int:
    value = int(session.execute(text("SELECT name FROM item WHERE id = 1")).scalar_one())
    session.execute(
        text("UPDATE item SET name = :name WHERE id = 1"), {"name": str(value + 1)}
    )
    return value


@only("asyncpg", "psycopg", "psycopg-async")
async def test_concurrent_increments_are_all_counted(
    flavour: Flavour, observer: Observer
) -> None:
    await flavour.work(lambda session: add_item(session, "0") and None)
    app = serve(flavour, count, isolation_level="SERIALIZABLE", attempts=60)

    replies = await asyncio.gather(*(call(app, "POST", "/") for _ in range(20)))

    assert [reply.status for reply in replies] == [200] * 20
    assert sorted(reply.json for reply in replies) == list(range(20))
    assert observer.names() == ["20"]
