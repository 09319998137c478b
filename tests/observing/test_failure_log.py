"""The log of units that have failed; and the way from a 503 to the guilty line."""

from __future__ import annotations

import asyncio
import logging
import re
from contextvars import Context
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.failing import Failing, request
from support.flavours import FEW, Flavour, only
from support.models import add_item
from unitwork import DBSessionMiddleware
from unitwork.events import FailureLog, UnitEnded, UnitRetried

pytestmark = pytest.mark.anyio


async def get(flavour: Flavour, body: Any) -> Reply:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.get("/items/{id}")(flavour.endpoint(body))
    return await call(app, "GET", "/items/7")


@FEW
async def test_a_unit_that_fails_is_one_line(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(session: Session) -> None:
        add_item(session)
        raise HTTPException(409)

    stop = flavour.db.observe(FailureLog(), only=[UnitEnded])
    await get(flavour, refuse)
    stop()

    [record] = caplog.records
    said = "GET /items/{id}: rolled back (HTTPException was raised), attempt 1, "
    assert record.getMessage().startswith(said)
    assert record.levelno == logging.WARNING
    assert vars(record)["unitwork_route"] == "/items/{id}"
    assert vars(record)["unitwork_outcome"] == "rolled_back"
    assert vars(record)["unitwork_held"] > 0
    assert vars(record)["unitwork_unit"] > 0


@only("psycopg", "asyncpg")
async def test_the_line_has_the_sqlstate(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    stop = flavour.db.observe(FailureLog(), only=[UnitEnded])
    await get(flavour, lambda session: session.execute(text("SELECT 1 / 0")))
    stop()

    [record] = [x for x in caplog.records if "unitwork_unit" in vars(x)]
    assert "Error was raised, 22012), attempt 1, " in record.getMessage()


@FEW
async def test_a_retry_is_another_line(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    stop = flavour.db.observe(FailureLog(), only=[UnitEnded, UnitRetried])
    await request(flavour, Failing(1))
    stop()

    ended, retried = (each.getMessage() for each in caplog.records)
    assert ended.startswith("POST /: rolled back (")
    assert retried == "POST /: attempt 1 is followed by another one"


@FEW
async def test_a_unit_that_is_committed_is_none(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "unitwork")

    stop = flavour.db.observe(FailureLog())
    await get(flavour, lambda session: add_item(session).id)
    stop()

    assert caplog.records == []


@only("psycopg", "asyncpg")
async def test_the_log_of_a_503_has_the_line_that_holds_the_connection(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    record = await log_of_a_503(flavour, caplog)

    logged = logging.Formatter().format(record)
    assert "Held by:" in logged
    [first, *_] = logged.splitlines()
    assert re.search(r"503: held by a transaction\(\) block for .* at tests/", first)
    assert "taken at tests/" in logged
    assert vars(record)["unitwork_route"] == "/items/{id}"
    assert vars(record)["unitwork_status"] == 503


@only("psycopg", "asyncpg")
@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
async def test_a_traceback_of_the_pool_is_logged_for_debugging_alone(
    flavour: Flavour, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    with caplog.at_level(level, "unitwork"):
        record = await log_of_a_503(flavour, caplog)

    assert (record.exc_info is not None) == (level == logging.DEBUG)


async def log_of_a_503(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> logging.LogRecord:
    """What is logged of a request while another unit holds the only connection."""
    other = flavour.another(pool_size=1, max_overflow=0, pool_timeout=0.01)

    def read(session: Session) -> Any:
        return session.scalar(text("SELECT 1"))

    async with other.block() as session:
        await other.do(session, read)
        reply = await asked(other, read)

    await other.dispose()
    assert reply.status == 503
    [record] = [each for each in caplog.records if "503" in each.getMessage()]
    return record


async def asked(flavour: Flavour, body: Any) -> Reply:
    """A request of another client, in a context of its own."""
    task = asyncio.get_running_loop().create_task(get(flavour, body), context=Context())
    return await task
