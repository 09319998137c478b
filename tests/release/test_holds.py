"""How long connections are held, who holds them, and who is warned of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextvars import Context
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import exc

from support.asgi import Reply, call
from support.clocks import Clock
from support.flavours import FEW, Flavour, Observer, only
from support.models import Item, add_item, names
from support.pool import eventually
from support.recording import recording
from support.releasing import outside
from unitwork import (
    DatabaseSettings,
    DBSessionMiddleware,
    PoolTimeoutError,
    UnexpectedRollbackError,
    UsageError,
)
from unitwork._engine import hold_watch
from unitwork._engine.hold_watch import held_connections
from unitwork._transaction.loan import Loan
from unitwork._unit.context import innermost
from unitwork.events import ConnectionTaken
from unitwork.fastapi import exception_handlers

pytestmark = pytest.mark.anyio

HERE = "tests/release/test_holds.py:"


async def settled(flavour: Flavour, **settings: Any) -> AsyncIterator[Flavour]:
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.05}
    other = flavour.another(settings=DatabaseSettings(**settings), **options)
    yield other
    await other.dispose()


@pytest.fixture
async def watched(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database with one connection, which is not to be held for long."""
    async for each in settled(flavour, hold_warning=0.05):
        yield each


@pytest.fixture
async def limited(flavour: Flavour) -> AsyncIterator[Flavour]:
    async for each in settled(flavour, idle_limit=30.0):
        yield each


async def request(flavour: Flavour, endpoint: Any) -> Reply:
    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.get("/items/{id}")(endpoint)
    return await call(app, "GET", "/items/1")


async def apart(work: Coroutine[Any, Any, Any]) -> Any:
    """Await *work* as if it was not inside of the unit around the test."""
    return await asyncio.create_task(work, context=Context())


def messages(caplog: pytest.LogCaptureFixture, start: str) -> list[str]:
    return [x.getMessage() for x in caplog.records if x.getMessage().startswith(start)]


async def test_warns_of_a_connection_that_is_held_for_long(
    watched: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "unitwork")

    async def endpoint() -> None:
        await watched.do(await watched.db.session(), names)
        await eventually(lambda: messages(caplog, "a connection is held"))

    assert (await request(watched, endpoint)).status == 200
    (warning,) = messages(caplog, "a connection is held")
    assert "hold_warning=0.05: GET /items/{id} for " in warning
    assert f"taken at {HERE}" in warning or "taken at tests/support/" in warning
    assert "last statement: SELECT item.name FROM item" in warning
    assert warning.endswith("make it inside `unit.outside()`, before the first write")
    fields = [vars(x) for x in caplog.records if "unitwork_held" in vars(x)]
    assert len(fields) == 2
    returned = f"returned: GET /items/{{id}} for {fields[1]['unitwork_held']:.1f} sec"
    assert len(messages(caplog, returned)) == 1
    assert all(x["unitwork_call_site"].startswith("tests/") for x in fields)
    assert fields[0]["unitwork_held"] < fields[1]["unitwork_held"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
async def test_a_look_that_fails_is_not_the_last_one(
    watched: Flavour,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    def fail() -> list[Loan]:
        monkeypatch.undo()
        raise error

    async def hold(until: str) -> None:
        async with watched.block() as session:
            await watched.do(session, names)
            await eventually(lambda: messages(caplog, until))

    monkeypatch.setattr(hold_watch, "all_loans", fail)
    await hold(until="a watchdog failed")

    await hold(until="a connection is held")


async def test_knows_of_no_connection_that_is_released(flavour: Flavour) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        async with outside():
            assert held_connections(flavour.sync_engine) == []


async def test_names_the_line_that_has_taken_the_connection(flavour: Flavour) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        (held,) = held_connections(flavour.sync_engine)

    assert held.unit == "a transaction() block"
    assert "support/" in held.call_site or HERE in held.call_site
    assert held.statement.startswith("SELECT")
    assert held_connections(flavour.sync_engine) == []


async def test_names_no_line_if_the_endpoint_has_returned_before(
    watched: Flavour,
) -> None:
    async def endpoint() -> None:
        session = await watched.db.session()
        await watched.do(session, lambda to: to.add(Item(name="lamp")))  # not flushed

    with recording(watched.db) as recorded:
        assert (await request(watched, endpoint)).status == 200

    assert recorded.one(ConnectionTaken).call_site is None


@FEW
async def test_a_timeout_of_the_pool_names_who_holds_the_connections(
    watched: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    async def endpoint() -> None:
        session = await watched.db.session()
        await watched.do(session, names)

    async with watched.block() as session:
        await watched.do(session, names)
        reply = await apart(request(watched, endpoint))

    assert reply.status == 503
    assert "a transaction() block for" in caplog.text
    assert "idle in its transaction), taken at" in caplog.text


@only("sqlite3")
async def test_the_error_of_the_gate_names_them_itself(watched: Flavour) -> None:
    async with watched.block() as session:
        await watched.do(session, names)
        with pytest.raises(PoolTimeoutError, match=r"Held by:\n- a transaction\(\)"):
            await apart(watched.work(names))


@only("asyncpg")
async def test_the_error_of_the_pool_has_a_note_that_names_them(
    watched: Flavour,
) -> None:
    async with watched.block() as session:
        await watched.do(session, names)
        with pytest.raises(exc.TimeoutError) as caught:
            await apart(watched.work(names))

    notes = getattr(caught.value, "__notes__", [])
    assert any("Held by:\n- a transaction() block" in note for note in notes)


async def test_counts_what_a_unit_holds_and_how_long_it_is_idle(
    flavour: Flavour,
) -> None:
    async with flavour.block() as session:
        unit = innermost()
        assert unit is not None
        await flavour.do(session, names)
        async with outside():
            await asyncio.sleep(0.05)
        await flavour.do(session, names)
        await asyncio.sleep(0.02)
        use = unit.sessions.use

    assert use.connections == 2
    assert use.held >= use.idle >= use.longest_idle >= 0.02


@FEW
async def test_a_statement_after_the_idle_limit_is_refused(
    limited: Flavour, observer: Observer, clock: Clock
) -> None:
    async def work() -> None:
        async with limited.block() as session:
            await limited.do(session, add_item)
            clock.put_forward(31.0)
            await limited.do(session, names)

    with pytest.raises(UsageError, match=r"idle_limit=30\b"):
        await work()
    assert observer.names() == []


@FEW
async def test_the_refused_statement_is_not_forgotten(
    limited: Flavour, observer: Observer, clock: Clock
) -> None:
    async def work() -> None:
        async with limited.block() as session:
            await limited.do(session, add_item)
            clock.put_forward(31.0)
            with pytest.raises(UsageError):
                await limited.do(session, names)

    with pytest.raises(UnexpectedRollbackError):
        await work()
    assert observer.names() == []
