"""P5: a COMMIT whose answer never came is settled by the database, or called unknown.

`held` makes COMMIT wait in the server, so that something can happen meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest
from fastapi import BackgroundTasks, FastAPI
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.flavours import POSTGRESQL, Flavour, Observer, only
from support.models import add_item, names
from support.pool import check_pool_is_whole, eventually
from support.proxy import Proxy, RoundTrips
from unitwork import (
    CommitUnknownError,
    CommitVerifier,
    DatabaseSettings,
    DBSessionMiddleware,
    Outcome,
    UnitOfWork,
    UsageError,
    current_unit,
)
from unitwork._engine.commit_status import TransactionStatus

pytestmark = pytest.mark.anyio

LOCK = 5_005
WAIT_AT_COMMIT = f"""
DO $$ BEGIN
    CREATE TEMP TABLE held (a int) ON COMMIT DROP;
    CREATE FUNCTION pg_temp.wait() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock_shared({LOCK}); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON held DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION pg_temp.wait();
    INSERT INTO held VALUES (1);
END $$
"""


class Server:
    """PostgreSQL behind a proxy, and an application that uses it."""

    def __init__(self, flavour: Flavour, proxy: Proxy) -> None:
        self.flavour = flavour
        self.proxy = proxy
        self.observer = Observer(flavour.url)
        self.calls: list[str] = []
        self.units: list[UnitOfWork] = []
        self.app = FastAPI()
        self.slow = False

    def serve(self, **settings: Any) -> Flavour:
        """Connect the application, through the proxy; gives what to dispose of."""
        settings = {"verify_commit": True, "end_timeout": 1.0, **settings}
        served = replace(self.flavour, url=self.proxy.url).another(
            settings=DatabaseSettings(**settings)
        )
        self.app.add_middleware(DBSessionMiddleware, db=served.db)

        def write(session: Session) -> None:
            add_item(session)
            if self.slow:
                session.execute(text(WAIT_AT_COMMIT))

        def endpoint(background: BackgroundTasks) -> None:
            unit = current_unit()
            self.units.append(unit)
            for kind in ("on_commit", "on_rollback", "on_unknown"):
                getattr(unit, kind)(self.calls.append, kind)
            background.add_task(self.calls.append, "background")

        work = served.endpoint(write)

        if served.is_async:

            async def post(background: BackgroundTasks) -> None:
                endpoint(background)
                await work(served.db.current)

            self.app.post("/")(post)
        else:

            def post_in_thread(background: BackgroundTasks) -> None:
                endpoint(background)
                work(served.db.current)

            self.app.post("/")(post_in_thread)
        self.app.get("/")(served.endpoint(names))
        return served

    async def post(self) -> Reply:
        async with asyncio.timeout(20):
            return await call(self.app, "POST", "/")

    async def committing(self) -> int:
        """Wait until the server is in the middle of COMMIT; gives the backend's pid."""
        found: list[tuple[Any, ...]] = []

        def look() -> bool:
            found[:] = self.observer._query(
                "SELECT pid FROM pg_stat_activity WHERE query LIKE 'COMMIT%' AND "
                "wait_event_type = 'Lock' AND datname = current_database()"
            )
            return bool(found)

        await eventually(look)
        return int(found[0][0])

    @property
    def outcome(self) -> Outcome | None:
        return self.units[-1].outcome


@pytest.fixture
async def server(flavour: Flavour) -> AsyncIterator[Server]:
    async with Proxy(flavour.url) as proxy:
        yield Server(flavour, proxy)


@asynccontextmanager
async def served(server: Server, **settings: Any) -> AsyncIterator[None]:
    there = server.serve(**settings)
    yield
    assert not there.db._source._units, "a unit was not ended"
    assert there.db.pool_status().checked_out == 0
    await eventually(lambda: server.observer.in_transaction() == [])
    await there.dispose()


@contextmanager
def held(server: Server) -> Iterator[psycopg.Connection[Any]]:
    """Let COMMIT wait in the server, until the block ends."""
    plain = make_url(server.flavour.url).set(drivername="postgresql")
    server.slow = True
    with psycopg.connect(plain.render_as_string(False), autocommit=True) as other:
        other.execute(f"SELECT pg_advisory_lock({LOCK})")
        yield other


# Settled


@only(*POSTGRESQL)
async def test_a_commit_that_never_came_is_an_ordinary_failure(server: Server) -> None:
    async with served(server):
        server.proxy.when(b"COMMIT", server.proxy.cut)
        reply = await server.post()

    assert (reply.status, reply.complete) == (500, True)
    assert isinstance(reply.error, DBAPIError)
    assert (server.observer.names(), server.outcome) == ([], Outcome.ROLLED_BACK)
    assert server.calls == ["on_rollback"]


@only(*POSTGRESQL)
async def test_a_commit_whose_answer_was_lost_is_a_success(server: Server) -> None:
    async with served(server):
        with held(server):
            request = asyncio.create_task(server.post())
            await server.committing()
            server.proxy.cut()
        reply = await request

    assert (reply.status, reply.complete, reply.error) == (200, True, None)
    assert (server.observer.names(), server.outcome) == (["one"], Outcome.COMMITTED)
    assert server.calls == ["on_commit", "background"]


class Asked(TransactionStatus):
    """Keeps what it has answered."""

    def __init__(self) -> None:
        self.answers: list[bool | None] = []

    def committed(self, connection: Connection, mark: Any) -> bool | None:
        self.answers.append(TransactionStatus.committed(self, connection, mark))
        return self.answers[-1]


@only(*POSTGRESQL)
async def test_a_commit_that_is_still_under_way_is_waited_for(server: Server) -> None:
    status = Asked()
    async with served(server, verify_commit=status):
        with held(server):
            request = asyncio.create_task(server.post())
            await server.committing()
            server.proxy.cut()
            await eventually(lambda: len(status.answers) > 1)
            assert not request.done()
        reply = await request

    assert (reply.status, server.observer.names()) == (200, ["one"])


@only(*POSTGRESQL)
async def test_a_server_that_gives_up_in_the_middle_of_commit(server: Server) -> None:
    async with served(server):
        with held(server) as other:
            request = asyncio.create_task(server.post())
            pid = await server.committing()
            other.execute(f"SELECT pg_terminate_backend({pid})")
            reply = await request

    assert (reply.status, server.outcome) == (500, Outcome.ROLLED_BACK)
    assert isinstance(reply.error, DBAPIError)
    assert (server.observer.names(), server.calls) == ([], ["on_rollback"])


@only(*POSTGRESQL)
async def test_a_commit_that_takes_too_long_is_broken_off_and_asked_about(
    server: Server,
) -> None:
    status = Asked()
    async with served(server, commit_timeout=0.2, verify_commit=status):
        with held(server):
            request = asyncio.create_task(server.post())
            await server.committing()
            await eventually(lambda: status.answers != [])
        reply = await request

    assert (reply.status, server.observer.names()) == (200, ["one"])


@only(*POSTGRESQL)
async def test_a_backend_that_waits_for_a_commit_in_vain_is_ended(
    server: Server,
) -> None:
    async with served(server, commit_timeout=0.2):
        server.proxy.when(b"COMMIT", server.proxy.swallow)
        request = asyncio.create_task(server.post())
        await eventually(lambda: server.proxy.swallowing)
        await eventually(lambda: server.observer.in_transaction() != [])
        server.proxy.swallowing = False  # for those who ask
        reply = await request

        assert (reply.status, server.outcome) == (500, Outcome.ROLLED_BACK)
        assert server.observer.names() == []


@only(*POSTGRESQL)
async def test_a_block_whose_commit_is_confirmed_later_keeps_its_objects(
    server: Server,
) -> None:
    there = server.serve()
    items = []

    def body(session: Session) -> None:
        items.append(add_item(session))
        session.execute(text(WAIT_AT_COMMIT))

    with held(server):
        block = asyncio.create_task(there.work(body))
        await server.committing()
        server.proxy.cut()
    await block

    assert (items[0].id, items[0].name) == (1, "one")
    assert server.observer.names() == ["one"]
    await there.dispose()


@only(*POSTGRESQL)
async def test_the_pool_is_whole_afterwards(server: Server) -> None:
    async with served(server):
        server.proxy.when(b"COMMIT", server.proxy.cut)
        await server.post()
        reply = await server.post()

        assert (reply.status, server.observer.names()) == (200, ["one"])
    await check_pool_is_whole(server.flavour)


# Unknown


@only(*POSTGRESQL)
@pytest.mark.parametrize("verify", [True, False])
async def test_what_nobody_can_tell_is_called_unknown(
    server: Server, verify: bool
) -> None:
    async with served(server, verify_commit=verify, verify_timeout=0.3):
        with held(server):
            request = asyncio.create_task(server.post())
            await server.committing()
            server.proxy.refusing = 1_000
            server.proxy.cut()
            reply = await request

    assert (reply.status, reply.complete) == (500, True)
    assert isinstance(reply.error, CommitUnknownError)
    assert isinstance(reply.error.__cause__, Exception)
    assert (server.outcome, server.calls) == (Outcome.UNKNOWN, ["on_unknown"])
    await eventually(lambda: server.observer.names() == ["one"])


@only("psycopg", "asyncpg")
@pytest.mark.parametrize(
    "other", [{"timeline": "000000FF"}, {"system": 1}, {"stats_reset": "yesterday"}]
)
async def test_another_history_can_not_tell(
    flavour: Flavour, other: dict[str, Any]
) -> None:
    """After a failover the same number may be that of another transaction."""
    status = TransactionStatus()

    def work(session: Session) -> list[bool | None]:
        add_item(session)
        mark = status.before_commit(session.connection())
        assert mark is not None
        session.commit()
        marks = (mark, mark._replace(**other))
        return [status.committed(session.connection(), each) for each in marks]

    right, wrong = await flavour.work(work)

    assert (right, wrong) == (True, None)


# What it costs


def look(session: Session, name: str) -> None:
    names(session)


@only(*POSTGRESQL)
@pytest.mark.parametrize(
    ("body", "verify", "asked"),
    [(add_item, True, 1), (look, True, 0), (add_item, False, 0)],
)
async def test_only_units_that_write_ask_for_their_number(
    flavour: Flavour, body: Any, verify: bool, asked: int
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

    assert made == 3 + asked  # BEGIN, the statement, COMMIT


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


def test_a_verifier_has_two_methods() -> None:
    wrong: Any = object()

    with pytest.raises(UsageError, match="before_commit and committed"):
        DatabaseSettings(verify_commit=wrong)
