"""Which server a unit has read from is in its events, logs, spans and metrics."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from servers.postgresql_replication import Replication
from support.asgi import call
from support.exported import Exported
from support.flavours import Flavour
from support.inspecting import LOCAL
from support.models import add_item
from support.recording import recording
from support.replicated import (
    is_replica,
    port,
    port_of,
    replicated_flavour,
    with_driver,
)
from unitwork.events import ConnectionTaken, FailureLog, UnitEnded
from unitwork.inspector import Inspector
from unitwork.telemetry import instrument

pytestmark = pytest.mark.anyio

POOL = "db.client.connection.pool.name"


def names_by_port(flavour: Flavour, servers: Replication) -> dict[int, str]:
    names = [each.name for each in flavour.db.replica_status()]
    ports = [port_of(each) for each in servers.replica_urls]
    return dict(zip(ports, names, strict=True))


async def test_events_name_the_replica(
    replicated: Flavour, replication: Replication
) -> None:
    with recording(replicated.db) as recorder:
        used = await replicated.work(port, read_only=True)

    name = names_by_port(replicated, replication)[used]
    assert recorder.one(ConnectionTaken).pool == name
    assert recorder.one(UnitEnded).use.pools == (name,)


async def test_events_name_the_primary_by_its_database(replicated: Flavour) -> None:
    with recording(replicated.db) as recorder:
        await replicated.work(is_replica)

    assert recorder.one(ConnectionTaken).pool == "default"
    assert recorder.one(UnitEnded).use.pools == ("default",)


async def test_the_log_of_a_failure_names_the_replica(
    replicated: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(session: Session) -> None:
        session.execute(text("SELECT * FROM nothing"))

    stop = replicated.db.observe(FailureLog(), only=[UnitEnded])
    with pytest.raises(Exception, match="nothing"):
        await replicated.work(fail, read_only=True)
    stop()

    [record] = caplog.records
    [name] = vars(record)["unitwork_pools"]
    assert name.startswith("default, replica ")


async def test_a_span_names_the_replica(replicated: Flavour) -> None:
    exported = Exported()
    stop = instrument(replicated.db, **exported.providers)
    await replicated.work(is_replica, read_only=True)
    stop()

    attributes: Any = exported.spans["unit"].attributes
    [name] = attributes["unitwork.pools"]
    assert name.startswith("default, replica ")
    exported.shutdown()


async def test_metrics_of_connections_have_the_pool_of_the_replica(
    replication: Replication,
) -> None:
    [url, _] = replication.replica_urls
    flavour = replicated_flavour(
        "psycopg", replication, replicas=[with_driver(url, "psycopg")]
    )
    exported = Exported()
    stop = instrument(flavour.db, **exported.providers)
    await flavour.work(is_replica, read_only=True)

    pool = {POOL: "default, replica 1"}
    for name in ("wait_time", "create_time", "use_time"):
        [point] = exported.points(f"db.client.connection.{name}")
        assert (point.attributes, point.count) == (pool, 1)
    stop()
    exported.shutdown()
    await flavour.dispose()


async def test_the_inspector_names_the_replica(replicated: Flavour) -> None:
    inspector: Any = Inspector(replicated.db)
    await replicated.work(is_replica, read_only=True)

    [unit] = (await call(inspector, "GET", "/timeline.json", headers=LOCAL)).json[
        "units"
    ]
    reply = await call(inspector, "GET", f"/unit/{unit['id']}.json", headers=LOCAL)
    inspector.close()
    [name] = unit["pools"]
    assert name.startswith("default, replica ")
    [taken] = [
        each
        for each in reply.json["unit"]["events"]
        if each["what"] == "connection taken"
    ]
    assert taken["pool"] == name


async def test_no_name_of_a_pool_has_a_password(replicated: Flavour) -> None:
    with recording(replicated.db) as recorder:
        await replicated.work(add_item)
        await replicated.work(is_replica, read_only=True)

    password = replicated.sync_engine.url.password or "://"
    assert password not in json.dumps([str(each) for each in recorder.events])


async def test_replicas_of_a_callable_are_observed_once_they_are_known(
    replication: Replication,
) -> None:
    engine = create_async_engine(with_driver(replication.replica_urls[0], "asyncpg"))
    flavour = replicated_flavour("asyncpg", replication, replicas=lambda: [engine])
    with recording(flavour.db) as recorder:
        assert await flavour.work(is_replica, read_only=True)

    await flavour.dispose()
    await engine.dispose()
    assert "default, replica 1" in {each.pool for each in recorder.of(ConnectionTaken)}
    assert recorder.pool_story.count("ConnectionOpened") == 1
