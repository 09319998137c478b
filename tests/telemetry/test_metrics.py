"""The metrics of units and of pools."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy import NullPool, text
from sqlalchemy.orm import Session

from support.asgi import call
from support.exported import Exported
from support.flavours import EVERY, FEW, Flavour, only
from support.models import add_item
from unitwork import DBSessionMiddleware, UsageError, current_unit
from unitwork.telemetry import instrument

pytestmark = pytest.mark.anyio

OF_POOLS = {
    f"db.client.connection.{name}"
    for name in (
        "count",
        "create_time",
        "idle.max",
        "idle.min",
        "max",
        "pending_requests",
        "use_time",
        "wait_time",
    )
}


def read(session: Session) -> Any:
    return session.scalar(text("SELECT 1"))


async def request(flavour: Flavour, body: Any) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.get("/items/{id}")(flavour.endpoint(body))
    await call(app, "GET", "/items/7")


@only(*EVERY)
async def test_a_unit_is_recorded_with_its_route_and_outcome(
    instrumented: Flavour, exported: Exported
) -> None:
    await request(instrumented, read)

    [point] = exported.points("unitwork.unit.duration")
    assert dict(point.attributes) == {
        "http.request.method": "GET",
        "http.route": "/items/{id}",
        "unitwork.attempt": 1,
        "unitwork.kind": "request",
        "unitwork.outcome": "committed",
        "unitwork.reason": "status",
    }
    assert exported.total("unitwork.commit.duration") == 1
    assert exported.total("unitwork.connection.held") == 1
    assert exported.total("unitwork.connection.idle_in_transaction") == 1


@FEW
async def test_a_failure_has_its_cause_and_its_error(
    instrumented: Flavour, exported: Exported
) -> None:
    def refuse(session: Session) -> None:
        add_item(session)
        raise HTTPException(409)

    await request(instrumented, refuse)

    [point] = exported.points("unitwork.unit.duration")
    assert point.attributes["unitwork.outcome"] == "rolled_back"
    assert point.attributes["unitwork.reason"] == "exception"
    assert point.attributes["error.type"] == "HTTPException"


@FEW
async def test_a_unit_without_a_transaction_says_so(
    instrumented: Flavour, exported: Exported
) -> None:
    await request(instrumented, lambda session: None)

    [point] = exported.points("unitwork.unit.duration")
    assert point.attributes["unitwork.outcome"] == "empty"
    assert point.attributes["unitwork.reason"] == "no_transaction"


@only("psycopg", "psycopg-async", "asyncpg")
async def test_all_metrics_of_a_pool_are_there(
    flavour: Flavour, exported: Exported
) -> None:
    other = flavour.another(pool_size=3, max_overflow=2)
    stop = instrument(other.db, **exported.providers)

    await other.work(read)

    pools = "db.client.connection"
    assert exported.names() >= OF_POOLS
    assert exported.total(f"{pools}.max") == 5
    assert exported.total(f"{pools}.idle.max") == 3
    assert exported.total(f"{pools}.count", db_client_connection_state="idle") == 1
    assert exported.total(f"{pools}.count", db_client_connection_state="used") == 0
    assert exported.total(f"{pools}.pending_requests") == 0
    stop()
    await other.dispose()


@only("psycopg", "asyncpg")
async def test_the_pools_of_replicas_are_counted_each_by_its_name(
    flavour: Flavour, exported: Exported
) -> None:
    url = flavour.sync_engine.url
    other = flavour.another(replicas=[url, url], pool_size=3, max_overflow=2)
    stop = instrument(other.db, **exported.providers)

    points = exported.points("db.client.connection.max")

    assert {
        point.attributes["db.client.connection.pool.name"]: point.value
        for point in points
    } == {"default": 5, "default, replica 1": 5, "default, replica 2": 5}
    stop()
    await other.dispose()


@only("sqlite3", "psycopg", "asyncpg")
async def test_connections_are_counted_without_a_pool_as_well(
    flavour: Flavour, exported: Exported
) -> None:
    other = flavour.another(poolclass=NullPool)
    stop = instrument(other.db, **exported.providers)
    count = "db.client.connection.count"

    async with other.block() as session:
        await other.do(session, read)
        used = exported.total(count, db_client_connection_state="used")

    assert used == 1
    assert exported.total(count) == 0
    assert exported.total("db.client.connection.create_time") >= 1
    assert exported.total("db.client.connection.use_time") >= 1
    stop()


@FEW
async def test_the_holders_of_connections_are_known_by_their_route(
    instrumented: Flavour, exported: Exported
) -> None:
    seen = []

    def look(session: Session) -> None:
        read(session)
        seen.extend(exported.points("unitwork.connection.holders"))

    await request(instrumented, look)

    [point] = [each for each in seen if each.value]
    assert point.attributes["http.route"] == "/items/{id}"
    assert exported.total("unitwork.connection.holders") == 0


@only("psycopg", "asyncpg")
async def test_a_wait_that_times_out_is_counted(
    flavour: Flavour, exported: Exported
) -> None:
    other = flavour.another(pool_size=2, max_overflow=0, pool_timeout=0.01)
    stop = instrument(other.db, **exported.providers)

    async with other.block() as first, other.block() as second:
        await other.do(first, read)
        await other.do(second, read)
        with pytest.raises(Exception, match=r"connection|timeout"):
            await other.work(read)

    assert exported.total("db.client.connection.timeouts") == 1
    assert exported.total("db.client.connection.pending_requests") == 0
    stop()
    await other.dispose()


@only("asyncpg")
async def test_hooks_that_fail_are_counted(
    instrumented: Flavour, exported: Exported
) -> None:
    def fail() -> None:
        raise LookupError

    def endpoint(session: Session) -> None:
        read(session)
        current_unit().on_commit(fail)

    await request(instrumented, endpoint)

    assert exported.total("unitwork.hook.failures", http_route="/items/{id}") == 1


@only("aiosqlite")
async def test_it_can_be_ended(flavour: Flavour, exported: Exported) -> None:
    instrument(flavour.db, **exported.providers)()

    await flavour.work(read)

    assert exported.total("unitwork.unit.duration") == 0
    assert exported.spans == {}


def test_it_needs_a_database() -> None:
    with pytest.raises(UsageError, match=r"instrument\(db\)"):
        instrument()
