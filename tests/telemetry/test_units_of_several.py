"""One recording of several databases, and several recordings of one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider
from sqlalchemy import text

from support.asgi import call
from support.exported import Exported
from support.flavours import Flavour, only
from unitwork import AsyncDatabase, DBSessionMiddleware
from unitwork._unit.database_base import core_of
from unitwork.telemetry import instrument

pytestmark = pytest.mark.anyio

USED = "db.client.connection.use_time"


@pytest.fixture
async def second(flavour: Flavour) -> AsyncIterator[AsyncDatabase]:
    database = AsyncDatabase(flavour.url, name="second")
    yield database
    await database.dispose()


async def read_both(flavour: Flavour, second: AsyncDatabase) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=[flavour.db, second])

    @app.get("/")
    async def read() -> None:
        await flavour.db.current.execute(text("SELECT 1"))
        await second.current.execute(text("SELECT 1"))

    await call(app, "GET", "/")


@only("aiosqlite")
async def test_a_unit_is_recorded_once_though_each_database_is_instrumented_apart(
    flavour: Flavour, second: AsyncDatabase, exported: Exported
) -> None:
    stops = [instrument(each, **exported.providers) for each in (flavour.db, second)]

    await read_both(flavour, second)

    assert exported.total("unitwork.unit.duration") == 1
    assert exported.total("unitwork.commit.duration", unitwork_database="second") == 1
    assert len(exported.of("unit")) == 1
    pools = exported.points("db.client.connection.max")
    assert len(pools) == 2
    for stop in stops:
        stop()


@only("aiosqlite", "asyncpg")
async def test_a_database_that_is_instrumented_twice_is_recorded_once(
    flavour: Flavour, exported: Exported
) -> None:
    stops = [instrument(flavour.db, **exported.providers) for _ in range(2)]

    await flavour.work(lambda session: session.execute(text("SELECT 1")))
    stops[0]()
    stops[0]()
    await flavour.work(lambda session: session.execute(text("SELECT 1")))

    stops[1]()
    assert exported.total("unitwork.unit.duration") == 2
    assert exported.total(USED) == 2


@only("aiosqlite", "asyncpg")
async def test_it_can_begin_again_after_its_end(
    flavour: Flavour, exported: Exported
) -> None:
    instrument(flavour.db, **exported.providers)()
    stop = instrument(flavour.db, **exported.providers)

    async with flavour.block() as session:
        await session.execute(text("SELECT 1"))
        held = exported.total("unitwork.connection.holders")

    stop()
    assert held == 1
    assert exported.points("db.client.connection.count") == []


@only("aiosqlite", "asyncpg")
async def test_its_end_leaves_no_holder_and_no_open_span(
    flavour: Flavour, exported: Exported
) -> None:
    stop = instrument(flavour.db, **exported.providers)

    async with flavour.block() as session:
        await session.execute(text("SELECT 1"))
        stop()

    assert exported.total("unitwork.connection.holders") == 0
    assert len(exported.of("unit")) == 1
    assert "db.transaction.outcome" not in exported.spans["unit"].attributes


@only("aiosqlite")
async def test_the_end_for_one_database_is_none_for_the_units_of_another(
    flavour: Flavour, second: AsyncDatabase, exported: Exported
) -> None:
    stop = instrument(flavour.db, **exported.providers)
    stop_second = instrument(second, **exported.providers)
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=[flavour.db, second])

    @app.get("/")
    async def read() -> None:
        await second.current.execute(text("SELECT 1"))
        stop()

    await call(app, "GET", "/")

    stop_second()
    assert exported.total("unitwork.connection.holders") == 0
    [unit] = exported.of("unit")
    assert unit.attributes["db.transaction.outcome"] == "committed"


@only("aiosqlite")
async def test_providers_that_record_nothing_get_no_events(flavour: Flavour) -> None:
    stop = instrument(
        flavour.db,
        meter_provider=NoOpMeterProvider(),
        tracer_provider=NoOpTracerProvider(),
    )

    assert core_of(flavour.db).observers.audience is None
    stop()
