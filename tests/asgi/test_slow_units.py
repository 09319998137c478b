"""A unit that uses a database for too long is logged, with all of its transactions."""

from __future__ import annotations

import logging
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session

from support.asgi import call
from support.conflicts import Conflict
from support.flavours import FEW, Flavour, only
from support.models import add_item, names
from support.runs import run
from unitwork import (
    DatabaseSettings,
    DBSessionMiddleware,
    TransactionOptions,
    current_unit,
)
from unitwork._session import transaction_ends
from unitwork.testing import no_waits

pytestmark = pytest.mark.anyio


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if each.name == "unitwork"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each transaction take a second, and what is outside of them no time."""
    ticks = count()
    fake = SimpleNamespace(monotonic=lambda: float(next(ticks)))
    monkeypatch.setattr(transaction_ends, "time", fake)


def slow(
    flavour: Flavour, limit: float | None, body: Any = add_item, **options: Any
) -> tuple[Flavour, FastAPI]:
    settings = DatabaseSettings(slow_unit_warning=limit)
    timed = flavour.another(settings=settings)
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=timed.db, **options)
    app.post("/items/{name}")(timed.endpoint(lambda session: bool(body(session))))
    return timed, app


@FEW
async def test_a_slow_unit_is_logged_with_its_route(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    timed, app = slow(flavour, 1e-9)

    assert (await call(app, "POST", "/items/lamp")).status == 200

    (record,) = logged(caplog)
    assert record.levelno == logging.WARNING
    assert record.message.startswith(
        "slow unit of work: POST /items/{name} used database 'default' for "
        f"{vars(record)['unitwork_duration']:.3f} seconds"
    )
    assert vars(record)["unitwork_route"] == "/items/{name}"
    assert vars(record)["unitwork_database"] == "default"
    assert vars(record)["unitwork_attempt"] == 1
    assert vars(record)["unitwork_duration"] > 0
    await timed.dispose()


@FEW
async def test_a_slow_block_is_logged(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    timed, _ = slow(flavour, 1e-9)

    await timed.work(add_item)

    (record,) = logged(caplog)
    duration = f"{vars(record)['unitwork_duration']:.3f} seconds"
    start = "a transaction() block used database 'default' for "
    assert start + duration in record.message
    await timed.dispose()


@pytest.mark.parametrize("limit", [None, 60.0])
@FEW
async def test_a_unit_that_is_fast_enough_is_not_logged(
    flavour: Flavour, caplog: pytest.LogCaptureFixture, limit: float | None
) -> None:
    timed, app = slow(flavour, limit)

    await call(app, "POST", "/items/lamp")

    assert logged(caplog) == []
    await timed.dispose()


# What counts


def commit_each(session: Session) -> None:
    add_item(session, "one")
    session.commit()
    add_item(session, "two")
    session.commit()


@FEW
@pytest.mark.usefixtures("clock")
async def test_all_transactions_of_a_unit_count(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    def body(session: Session) -> None:
        commit_each(session)
        add_item(session, "three")

    timed, app = slow(flavour, 2.5, body)
    assert (await call(app, "POST", "/items/lamp")).status == 200

    (record,) = logged(caplog)
    assert "used database 'default' for 3.000 seconds" in record.message
    await timed.dispose()


@FEW
@pytest.mark.usefixtures("clock")
async def test_a_unit_that_has_committed_by_itself_is_logged(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    timed, app = slow(flavour, 1.5, commit_each)
    assert (await call(app, "POST", "/items/lamp")).status == 200

    (record,) = logged(caplog)
    assert record.message.startswith("slow unit of work: POST /items/{name} used")
    assert "for 2.000 seconds" in record.message
    await timed.dispose()


@only("aiosqlite", "asyncpg")
@pytest.mark.usefixtures("clock")
async def test_a_slow_call_without_a_connection_does_not_count(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    timed, _ = slow(flavour, 1.5)
    async with timed.block() as session:
        await timed.do(session, names)
        async with current_unit().outside("a call"):
            transaction_ends.time.monotonic()
        await timed.do(session, names)

    (record,) = logged(caplog)
    assert "for 2.000 seconds" in record.message
    await timed.dispose()


def fail_once(session: Session) -> None:
    add_item(session)
    session.flush()
    if current_unit().attempt == 1:
        raise Conflict


@FEW
@pytest.mark.usefixtures("clock")
async def test_the_attempts_of_a_request_count_together(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    options = TransactionOptions(attempts=3)
    timed, app = slow(flavour, 1.5, fail_once, options=options)
    with no_waits():
        assert (await call(app, "POST", "/items/lamp")).status == 200

    (record,) = logged(caplog)
    assert "for 2.000 seconds" in record.message
    await timed.dispose()


@FEW
@pytest.mark.usefixtures("clock")
async def test_the_attempts_of_a_function_count_together(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    timed, _ = slow(flavour, 1.5)
    with no_waits():
        await run(timed, fail_once, attempts=2)

    (record,) = logged(caplog)
    assert "for 2.000 seconds" in record.message
    await timed.dispose()


@FEW
@pytest.mark.usefixtures("clock")
async def test_each_request_is_counted_by_itself(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    timed, app = slow(flavour, 1.5, names)
    for _ in range(3):
        assert (await call(app, "POST", "/items/lamp")).status == 200

    assert logged(caplog) == []
    await timed.dispose()
