"""What errors mean: real ones, made on real databases with every driver."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from support.clocks import Clock
from support.flavours import POSTGRESQL, SERVERS, Flavour, Observer, only
from support.holding import LOCK, holding, running
from support.meaning import error_of, meaning
from support.models import add_item, names
from unitwork import CommitUnknownError, Kind, Phase, classify


@contextmanager
def somebody_else(flavour: Flavour) -> Iterator[psycopg.Connection[Any]]:
    """Another client of the PostgreSQL server, and an item in the database."""
    plain = make_url(flavour.url).set(drivername="postgresql")
    with psycopg.connect(plain.render_as_string(False), autocommit=True) as other:
        other.execute("INSERT INTO item (name) VALUES ('one'), ('two')")
        yield other


def isolated(session: Session, level: str) -> None:
    session.connection(execution_options={"isolation_level": level})


# Others get in the way


@only(*POSTGRESQL)
async def test_an_update_that_came_second(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        isolated(session, "REPEATABLE READ")
        names(session)
        other.execute("UPDATE item SET name = 'new' WHERE name = 'one'")
        session.execute(text("UPDATE item SET name = 'newer' WHERE name = 'one'"))

    with somebody_else(flavour) as other:
        found = await meaning(flavour, body)

    assert (found.kind, found.code) == (Kind.RETRY, "40001")
    assert (found.retryable, found.poisons, found.disconnected) == (True, True, False)


@only(*POSTGRESQL)
async def test_a_serialization_failure_at_commit(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        isolated(session, "SERIALIZABLE")
        names(session)
        add_item(session, "mine")
        with other.transaction():
            other.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            other.execute("SELECT * FROM item")
            other.execute("INSERT INTO item (name) VALUES ('theirs')")

    with somebody_else(flavour) as other:
        found = await meaning(flavour, body, Phase.COMMIT)

    assert (found.kind, found.code, found.unknown) == (Kind.RETRY, "40001", False)
    assert observer.names() == ["one", "two", "theirs"]


@only(*POSTGRESQL)
async def test_a_deadlock(flavour: Flavour, observer: Observer) -> None:
    def body(session: Session) -> None:
        session.execute(text("SET LOCAL deadlock_timeout = '10ms'"))
        session.execute(text("UPDATE item SET name = 'a' WHERE name = 'one'"))
        with other.transaction(), ThreadPoolExecutor() as thread:
            other.execute("SET LOCAL deadlock_timeout = '1min'")  # it won't give in
            other.execute("SET LOCAL lock_timeout = '10s'")
            other.execute("UPDATE item SET name = 'b' WHERE name = 'two'")
            thread.submit(other.execute, "UPDATE item SET name = 'b' WHERE id = 1")
            wait_for_lock(observer, other)
            session.execute(text("UPDATE item SET name = 'a' WHERE name = 'two'"))

    with somebody_else(flavour) as other:
        found = await meaning(flavour, body)

    assert (found.kind, found.code, found.poisons) == (Kind.RETRY, "40P01", True)


def wait_for_lock(observer: Observer, other: psycopg.Connection[Any]) -> None:
    waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {}"
    for _ in range(1000):
        if observer._query(waits.format(other.info.backend_pid)) == [(True,)]:
            return
    pytest.fail("no session waits for the lock")


@only(*POSTGRESQL)
@pytest.mark.parametrize("wait", ["lock_timeout = '1ms'", "lock_timeout = 0"])
async def test_a_lock_that_is_not_to_be_had(flavour: Flavour, wait: str) -> None:
    def body(session: Session) -> None:
        session.execute(text(f"SET LOCAL {wait}"))
        nowait = " NOWAIT" if wait.endswith("0") else ""
        with other.transaction():
            other.execute("SELECT * FROM item FOR UPDATE")
            session.execute(text(f"SELECT * FROM item FOR UPDATE{nowait}"))

    with somebody_else(flavour) as other:
        found = await meaning(flavour, body)

    assert (found.kind, found.code) == (Kind.RETRY_WITH_CARE, "55P03")
    assert not found.retryable


@only(*POSTGRESQL)
async def test_a_plan_that_is_older_than_the_schema(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        for _ in range(10):  # psycopg prepares what it has seen five times
            session.execute(text("SELECT * FROM plan"))
            session.commit()

    def after_a_migration(session: Session) -> None:
        body(session)
        other.execute("ALTER TABLE plan ADD COLUMN b int")
        session.execute(text("SELECT * FROM plan"))

    with somebody_else(flavour) as other:
        other.execute("DROP TABLE IF EXISTS plan")
        other.execute("CREATE TABLE plan (a int)")
        found = await meaning(flavour, after_a_migration)
        await flavour.work(body)  # trying again does help
        other.execute("DROP TABLE plan")

    assert (found.kind, found.code) == (Kind.RETRY, "0A000")


# The same would happen again


@only(*POSTGRESQL)
@pytest.mark.parametrize(
    ("sql", "kind", "code"),
    [
        ("INSERT INTO item (name) VALUES ('one')", Kind.NEVER, "23505"),
        ("SELECT * FROM nowhere", Kind.NEVER, "42P01"),
        ("SELECT 1/0", Kind.NEVER, "22012"),
        ("SELECT pg_sleep(60)", Kind.TIMEOUT, "57014"),
        ("SELECT pg_cancel_backend(pg_backend_pid())", Kind.TIMEOUT, "57014"),
    ],
)
async def test_a_statement_that_the_server_refuses(
    flavour: Flavour, sql: str, kind: Kind, code: str
) -> None:
    def body(session: Session) -> None:
        session.execute(text("SET LOCAL statement_timeout = '50ms'"))
        session.execute(text(sql))

    with somebody_else(flavour):
        found = await meaning(flavour, body)

    assert (found.kind, found.code, found.family) == (kind, code, "postgresql")
    assert (found.poisons, found.disconnected) == (True, False)


@only(*POSTGRESQL)
async def test_a_write_in_a_read_only_transaction(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        session.execute(text("SET TRANSACTION READ ONLY"))
        add_item(session)

    found = await meaning(flavour, body)

    assert (found.kind, found.code) == (Kind.PRIMARY, "25006")


@only(*POSTGRESQL)
async def test_an_error_is_found_behind_those_that_only_follow_from_it(
    flavour: Flavour,
) -> None:
    def body(session: Session) -> None:
        try:
            session.execute(text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))
        except DBAPIError:
            names(session)

    found = await meaning(flavour, body)

    assert (found.kind, found.code, found.poisons) == (Kind.RETRY, "40001", True)


@only("sqlite3", "aiosqlite")
async def test_a_name_that_is_taken_in_sqlite(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        add_item(session)
        session.execute(text("INSERT INTO item (name) VALUES ('one')"))

    found = await meaning(flavour, body)

    assert (found.kind, found.code) == (Kind.NEVER, sqlite3.SQLITE_CONSTRAINT_UNIQUE)
    assert not found.poisons


async def test_a_mistake_of_the_application(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        add_item(session)
        raise LookupError

    found = await meaning(flavour, body)

    assert (found.kind, found.family) == (Kind.NEVER, None)


# Connections


@only(*SERVERS)
async def test_a_connection_that_ends_before_a_statement(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        observer.terminate_all()
        names(session)

    found = await meaning(flavour, body)

    assert (found.kind, found.phase) == (Kind.RECONNECT, Phase.STATEMENT)
    assert (found.retryable, found.poisons, found.disconnected) == (True, True, True)
    assert observer.names() == []


@only(*SERVERS)
async def test_a_connection_that_ends_before_commit(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        observer.terminate_all()
        session.commit()

    found = await meaning(flavour, body, Phase.COMMIT)

    assert (found.kind, found.disconnected) == (Kind.UNKNOWN, True)
    assert (found.retryable, found.poisons) == (False, False)


@only(*SERVERS)
async def test_a_commit_of_unitworks_own_needs_no_phase(
    unsure: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        observer.terminate_all()

    error = await error_of(unsure, body)

    assert isinstance(error, CommitUnknownError)
    found = classify(error)
    assert (found.kind, found.family) == (
        Kind.UNKNOWN,
        make_url(unsure.url).get_backend_name(),
    )


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, and refuses: no server listens."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@only(*SERVERS)
async def test_a_server_that_refuses_the_connection(
    flavour: Flavour, closed_port: int
) -> None:
    url = make_url(flavour.url).set(host="127.0.0.1", port=closed_port)
    away = replace(flavour, url=url.render_as_string(False)).another()

    found = await meaning(away, add_item)

    assert (found.kind, found.phase) == (Kind.RECONNECT, Phase.CONNECT)
    assert (found.retryable, found.poisons, found.disconnected) == (True, False, True)
    await away.dispose()


@only("asyncpg")
async def test_the_database_that_is_not_there(flavour: Flavour) -> None:
    # libpq, under psycopg, keeps the SQLSTATE of a failed connection to itself
    url = make_url(flavour.url).set(database="nowhere")
    away = replace(flavour, url=url.render_as_string(False)).another()

    found = await meaning(away, add_item)

    assert (found.kind, found.code) == (Kind.NEVER, "3D000")
    await away.dispose()


@only("sqlite3", "psycopg")
async def test_a_pool_without_a_free_connection(flavour: Flavour) -> None:
    small = flavour.another(pool_size=1, max_overflow=0, pool_timeout=0.01)

    with small.db.engine.connect():
        found = await meaning(small, add_item)

    assert (found.kind, found.disconnected) == (Kind.UNAVAILABLE, False)
    await small.dispose()


@only("asyncpg")
async def test_a_time_limit_of_the_driver_during_commit(
    flavour: Flavour, clock: Clock
) -> None:
    slow = flavour.another(connect_args={"command_timeout": 30.0})

    def body(session: Session) -> None:
        session.execute(text(SLOW_COMMIT))
        session.commit()

    with holding(flavour, seconds=60.0) as hold:
        async with running(error_of(slow, body)) as task:
            await hold.reached()
            clock.put_forward(30.0)
            error = await task

    assert type(error) is TimeoutError  # not wrapped by SQLAlchemy
    assert classify(error, phase=Phase.COMMIT).unknown
    assert classify(error, phase=Phase.STATEMENT).kind is Kind.TIMEOUT
    await slow.dispose()


SLOW_COMMIT = f"""
DO $$ BEGIN
    CREATE TEMP TABLE slow (a int) ON COMMIT DROP;
    CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait_for_lock({LOCK});
    INSERT INTO slow VALUES (1);
END $$
"""
