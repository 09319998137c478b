"""P5: what it costs to ask the database, and verifiers of one's own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from support.asgi import call
from support.commit_server import Server, held, look, served
from support.endpoints import serve_fastapi
from support.flavours import POSTGRESQL, Flavour, Observer, only
from support.models import add_item
from support.proxy import Proxy, RoundTrips
from support.through import round_trips
from unitwork import CommitVerifier, DatabaseSettings, Outcome, UsageError, current_unit
from unitwork.testing import CommitFault, commit_faults

pytestmark = pytest.mark.anyio


# What it costs


@only(*POSTGRESQL)
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("body", [add_item, look])
async def test_no_unit_pays_a_round_trip_for_its_verification(
    flavour: Flavour, body: Any, verify: bool
) -> None:
    async with Proxy(flavour.url) as proxy:
        there = replace(flavour, url=proxy.url).another(
            settings=DatabaseSettings(verify_commit=verify)
        )
        trips = RoundTrips()
        proxy.for_newcomers.append(trips)
        for name in range(10):  # from the sixth time on, psycopg has prepared it
            await there.work(partial(body, name=f"{name}"))
        before = trips.count
        await there.work(partial(body, name="one"))
        made = trips.count - before
        await there.dispose()

    assert made == 2 + round_trips(flavour.name)  # BEGIN, the statement, COMMIT


@only(*POSTGRESQL)
async def test_a_get_that_writes_pays_one_round_trip_for_its_verification(
    flavour: Flavour,
) -> None:
    async with Proxy(flavour.url) as proxy:
        there = replace(flavour, url=proxy.url).another()
        trips = RoundTrips()
        proxy.for_newcomers.append(trips)
        numbers = count()
        app = serve_fastapi(
            there, lambda session: add_item(session, f"{next(numbers)}").name
        )
        for _ in range(10):  # from the sixth time on, psycopg has prepared it
            await call(app, "GET", "/")
        before = trips.count
        reply = await call(app, "GET", "/")
        made = trips.count - before
        await there.dispose()

    assert reply.status == 200
    # BEGIN, the statement, the query for the id of the transaction, COMMIT
    assert made == 2 + 2 * round_trips(flavour.name)


# Verifiers of one's own


class Receipts:
    """Marks each transaction by a row of its own."""

    def __init__(self) -> None:
        self.given = 0

    def before_commit(self, connection: Connection) -> int:
        self.given += 1
        add = text("INSERT INTO item (name) VALUES (:name)")
        connection.execute(add, {"name": f"receipt {self.given}"})
        return self.given

    def committed(self, connection: Connection, mark: int) -> bool | None:
        look = text("SELECT 1 FROM item WHERE name = :name")
        found = connection.execute(look, {"name": f"receipt {mark}"})
        return True if found.first() else None  # it may still come


@only(*POSTGRESQL)
async def test_a_verifier_of_ones_own_is_asked(server: Server) -> None:
    verifier: CommitVerifier = Receipts()
    async with served(server, verify_commit=verifier, verify_timeout=5.0):
        with held(server):
            request = asyncio.create_task(server.post())
            await server.committing()
            server.proxy.cut()
        reply = await request

    assert reply.status == 200
    assert server.observer.names() == ["one", "receipt 1"]


async def test_what_a_verifier_raises_before_commit_makes_it_fail(
    flavour: Flavour, observer: Observer
) -> None:
    class Broken(Receipts):
        def before_commit(self, connection: Connection) -> int:
            raise LookupError

    there = flavour.another(settings=DatabaseSettings(verify_commit=Broken()))
    units = []

    def body(session: Session) -> None:
        add_item(session)
        units.append(current_unit())

    with pytest.raises(LookupError):
        await there.work(body)

    assert (observer.names(), units[0].outcome) == ([], Outcome.ROLLED_BACK)
    await there.dispose()


async def test_a_connection_lost_before_commit_was_sent_leaves_no_doubt(
    flavour: Flavour, observer: Observer
) -> None:
    lost = ConnectionResetError("lost while the mark was made")

    class Cut(Receipts):
        def before_commit(self, connection: Connection) -> int:
            raise OperationalError("SELECT", None, lost, connection_invalidated=True)

    there = flavour.another(settings=DatabaseSettings(verify_commit=Cut()))
    units = []

    def body(session: Session) -> None:
        add_item(session)
        units.append(current_unit())

    with pytest.raises(OperationalError):
        await there.work(body)

    assert (observer.names(), units[0].outcome) == ([], Outcome.ROLLED_BACK)
    await there.dispose()


def test_a_verifier_has_two_methods() -> None:
    wrong: Any = object()

    with pytest.raises(UsageError, match="before_commit and committed"):
        DatabaseSettings(verify_commit=wrong)


@only(*POSTGRESQL)
@pytest.mark.parametrize(
    ("fault", "status"), [(CommitFault.COMMITTED, 200), (CommitFault.ROLLED_BACK, 500)]
)
async def test_a_transaction_that_began_anew_is_verified_by_its_own_id(
    flavour: Flavour, observer: Observer, fault: CommitFault, status: int
) -> None:
    def body(session: Session) -> None:
        session.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        add_item(session)

    with commit_faults(flavour.db, fault):
        reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert reply.status == status
    assert observer.names() == ["one"] * (status == 200)
