"""The name of the application, which PostgreSQL shows while a transaction is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.asgi import call
from support.flavours import FEW, MARIADB, POSTGRESQL, Flavour, Observer, only
from support.models import add_item, names
from support.pgbouncer import SERVERS, on_every_server, through_pgbouncer
from support.proxy import Proxy, RoundTrips
from unitwork import DatabaseSettings, DBSessionMiddleware, UsageError
from unitwork.events import UnitInfo

pytestmark = pytest.mark.anyio

on_server = only(*POSTGRESQL)


def description(unit: UnitInfo) -> str:
    return unit.description


def set_name(session: Session) -> str:
    """As the server shows it to others."""
    query = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    reads = text(query).execution_options(unitwork_only_reads=True)
    return str(session.scalar(reads))


def look(session: Session, name: str) -> list[str]:
    return names(session)


def named(
    flavour: Flavour, name: Callable[[UnitInfo], str] = description, **settings: Any
) -> Flavour:
    return flavour.another(
        pool_size=1,
        max_overflow=0,
        settings=DatabaseSettings(application_name=name, **settings),
    )


@on_server
@pytest.mark.parametrize("verify", [True, False])
async def test_the_server_shows_the_route_of_a_request(
    flavour: Flavour, verify: bool
) -> None:
    other = named(flavour, verify_commit=verify)
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=other.db)
    app.get("/items/{id}")(other.endpoint(set_name))

    reply = await call(app, "GET", "/items/7")

    await other.dispose()
    assert reply.json == "GET /items/{id}"


@on_server
@pytest.mark.parametrize(
    "options",
    [{"read_only": True}, {"isolation_level": "SERIALIZABLE"}, {"timeout": 5.0}],
)
async def test_it_goes_with_other_options(
    flavour: Flavour, options: dict[str, Any]
) -> None:
    other = named(flavour)

    assert await other.work(set_name, **options) == "a transaction() block"

    await other.dispose()


@on_server
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_it_ends_with_the_transaction(flavour: Flavour, end: str) -> None:
    other = named(flavour)

    def end_it(session: Session) -> None:
        add_item(session)
        session.commit() if end == "COMMIT" else session.rollback()

    await other.work(end_it)

    # In AUTOCOMMIT there is no transaction, and so no name.
    assert await other.work(set_name, isolation_level="AUTOCOMMIT") == ""
    await other.dispose()


@on_server
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("body", [add_item, look])
async def test_it_takes_no_round_trip(
    flavour: Flavour, body: Any, verify: bool
) -> None:
    async with Proxy(flavour.url) as proxy:
        there = named(replace(flavour, url=proxy.url), verify_commit=verify)
        trips = RoundTrips()
        proxy.for_newcomers.append(trips)
        for name in range(10):  # from the sixth time on, psycopg has prepared it
            await there.work(partial(body, name=f"{name}"))
        before = trips.count
        await there.work(partial(body, name="one"))
        made = trips.count - before
        await there.dispose()

    assert made == 3  # BEGIN, the statement, COMMIT


@on_server
@pytest.mark.parametrize("verify", [True, False])
async def test_a_statement_that_precedes_all_queries_still_may(
    flavour: Flavour, verify: bool
) -> None:
    other = named(flavour, verify_commit=verify)

    def set_level(session: Session) -> tuple[str, str]:
        session.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        level = session.scalar(text("SHOW transaction_isolation"))
        return str(level), set_name(session)

    found = await other.work(set_level)

    await other.dispose()
    assert found == ("serializable", "a transaction() block")


@on_server
async def test_a_connection_that_takes_the_place_of_a_lost_one_has_it(
    flavour: Flavour, observer: Observer
) -> None:
    other = named(flavour)
    await other.work(names)
    observer.terminate_all()

    assert await other.work(set_name) == "a transaction() block"

    await other.dispose()


@on_server
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("it's \\ 100% {ü}; $1\n\0", "it_s _ 100% {_}; $1__"),
        ("x" * 100, "x" * 63),
        ("", ""),
    ],
)
async def test_whatever_the_name_is_it_is_only_a_name(
    flavour: Flavour, name: str, shown: str
) -> None:
    other = named(flavour, lambda unit: name)

    assert await other.work(set_name) == shown

    await other.dispose()


@on_server
async def test_one_that_fails_costs_no_unit_its_transaction(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(unit: UnitInfo) -> str:
        raise LookupError

    other = named(flavour, fail)

    assert await other.work(lambda session: add_item(session).name) == "one"

    await other.dispose()
    assert "application_name has failed" in caplog.text
    assert await flavour.work(names) == ["one"]


@on_server
async def test_in_release_mode_statement_it_begins_with_the_first_write(
    flavour: Flavour,
) -> None:
    other = named(flavour)

    def read_and_write(session: Session) -> list[str]:
        before = set_name(session)
        add_item(session)
        session.flush()
        return [before, set_name(session)]

    found = await other.work(read_and_write, release="statement")

    await other.dispose()
    assert found == ["", "a transaction() block"]


@on_server
async def test_behind_a_pooler_other_clients_do_not_get_it(
    flavour: Flavour, pooled: Flavour, pgbouncer: str
) -> None:
    other = through_pgbouncer(flavour, pgbouncer, application_name=description)

    found = await on_every_server(other, set_name)

    assert found == ["a transaction() block"] * SERVERS
    assert await on_every_server(pooled, set_name) == [""] * SERVERS
    await other.dispose()


@only("sqlite3", "aiosqlite", *MARIADB)
async def test_other_databases_refuse_it(flavour: Flavour) -> None:
    with pytest.raises(UsageError, match="application_name is set, and is for Postgre"):
        named(flavour)


@FEW
async def test_what_can_not_be_called_is_refused(flavour: Flavour) -> None:
    with pytest.raises(UsageError, match="application_name"):
        DatabaseSettings(application_name="shop")  # type: ignore[arg-type]
