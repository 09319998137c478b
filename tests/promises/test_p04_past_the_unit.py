"""P4: transactions that are ended, replaced or shared through their connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from anyio import to_thread
from sqlalchemy import event, text
from sqlalchemy.orm import Session, sessionmaker

from support.driver import INSERT, send
from support.flavours import POSTGRESQL, SYNC, Flavour, Observer, everywhere, only
from support.models import add_item
from support.swallowing import post_noting_unit
from unitwork import CommitUnknownError, Database, Outcome, current_unit

pytestmark = pytest.mark.anyio

Body = Callable[[Session], object]


# COMMIT through the connection


def by_connection(session: Session) -> None:
    session.connection().commit()


def by_root_transaction(session: Session) -> None:
    root = session.connection().get_transaction()
    assert root is not None
    root.commit()


def by_another_session(session: Session) -> None:
    other = Session(session.connection(), join_transaction_mode="control_fully")
    add_item(other, "two")
    other.commit()


COMMITS = [by_connection, by_root_transaction, by_another_session]


@everywhere
@pytest.mark.parametrize("commit", COMMITS)
async def test_a_commit_by_the_connection_is_no_rollback(
    flavour: Flavour, observer: Observer, commit: Body
) -> None:
    hooks: list[str] = []

    def body(session: Session) -> None:
        current_unit().on_rollback(hooks.append, "rolled back")
        add_item(session)
        commit(session)

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, CommitUnknownError)
    assert unit.outcome is Outcome.UNKNOWN
    assert "one" in observer.names()
    assert hooks == []


@everywhere
@pytest.mark.parametrize("commit", COMMITS)
async def test_nor_is_a_failure_after_it(
    flavour: Flavour, observer: Observer, commit: Body
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        commit(session)
        raise LookupError

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, LookupError)
    assert unit.outcome is Outcome.UNKNOWN


# The connection of a test or a script, which outlives the unit

MODES = ["create_savepoint", "rollback_only", "conditional_savepoint", "control_fully"]


@only(*SYNC, "pymysql")
@pytest.mark.parametrize("mode", MODES)
async def test_the_owner_of_a_connection_commits_after_the_unit(
    flavour: Flavour, observer: Observer, mode: str
) -> None:
    def body() -> None:
        with flavour.db.engine.connect() as connection:
            connection.begin()
            maker: Any = sessionmaker(connection, join_transaction_mode=mode)
            with Database(maker).transaction() as session:
                add_item(session)
            if mode != "control_fully":
                connection.commit()

    await to_thread.run_sync(body)

    assert observer.names() == ["one"]


@only(*SYNC, "pymysql")
async def test_and_goes_on_to_commit_what_is_its_own(
    flavour: Flavour, observer: Observer
) -> None:
    def body() -> None:
        with flavour.db.engine.connect() as connection:
            maker: Any = sessionmaker(connection)
            with Database(maker).transaction() as session:
                add_item(session)
            connection.execute(text(INSERT))
            connection.commit()

    await to_thread.run_sync(body)

    assert observer.names() == ["one", "by the driver"]


# Statements that must come before all queries

FIRST = [
    "LOCK TABLE item IN SHARE ROW EXCLUSIVE MODE",
    "SET TRANSACTION READ WRITE",
]
ISOLATION = [
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET LOCAL transaction_isolation = 'serializable'",
    "/* why */ SET LOCAL transaction_isolation TO 'serializable'",
    "-- why\nSET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
]


@only(*POSTGRESQL)
@pytest.mark.parametrize("statement", FIRST)
async def test_they_do_not_undo_what_the_driver_has_written(
    flavour: Flavour, observer: Observer, statement: str
) -> None:
    def body(session: Session) -> None:
        send(session, INSERT)
        session.execute(text(statement))

    reply, _ = await post_noting_unit(flavour, body)

    assert reply.status == 200
    assert observer.names() == ["by the driver"]


@only(*POSTGRESQL)
@pytest.mark.parametrize("statement", ISOLATION)
async def test_they_are_obeyed(flavour: Flavour, statement: str) -> None:
    def body(session: Session) -> Any:
        session.execute(text(statement))
        return session.scalar(text("SHOW transaction_isolation"))

    assert await flavour.work(body) == "serializable"


# A connection that the server drops between its checkout and BEGIN


@only(*POSTGRESQL)
async def test_its_replacement_is_prepared_by_what_listens_to_checkouts(
    flavour: Flavour, observer: Observer
) -> None:
    faults = [observer.terminate_all, lambda: None]

    @event.listens_for(flavour.sync_engine, "checkout")
    def checkout(dbapi_connection: Any, record: object, proxy: object) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute("SELECT set_config('app.tenant', 'mine', false)")
        cursor.close()
        dbapi_connection.commit()
        faults.pop()()

    def body(session: Session) -> Any:
        return session.scalar(text("SELECT current_setting('app.tenant', true)"))

    await flavour.work(body)
    faults.insert(0, lambda: None)

    assert await flavour.work(body) == "mine"
