"""P4: a COMMIT or ROLLBACK that does nothing to the work of the unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from anyio import to_thread
from fastapi import HTTPException
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session, sessionmaker

from support.driver import INSERT, send
from support.flavours import (
    MARIADB,
    POSTGRESQL,
    SYNC,
    Flavour,
    Observer,
    everywhere,
    only,
)
from support.models import add_item, names
from support.swallowing import post_noting_unit
from unitwork import (
    Database,
    Outcome,
    UnexpectedRollbackError,
    UsageError,
    current_unit,
)

pytestmark = pytest.mark.anyio

AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}
STORES_AND_HANGS_UP = text("""
    DO $$ BEGIN
        INSERT INTO item (name) VALUES ('one');
        COMMIT;
        PERFORM pg_terminate_backend(pg_backend_pid());
    END $$
""")
STORES_AND_FAILS = """
    INSERT INTO item (name) VALUES ('one');
    COMMIT;
    INSERT INTO nowhere VALUES (1);
"""
ONE_BY_ONE = text("INSERT INTO item SELECT :id, :name")


# A closed connection


@only("asyncpg")  # the other drivers raise an error
async def test_a_commit_on_a_closed_connection_is_no_success(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        pooled = session.connection().connection.dbapi_connection
        assert pooled is not None
        pooled.close()

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert unit.outcome is Outcome.ROLLED_BACK
    assert observer.names() == []


# A connection whose transaction has another owner


def use(session: Session, connection: Connection) -> None:
    session.execute(text(INSERT), bind_arguments={"bind": connection})


@everywhere
async def test_a_connection_in_a_transaction_is_refused(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        with flavour.sync_engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            use(session, connection)

    reply, _ = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, UsageError)
    assert "in a transaction already" in str(reply.error)
    assert observer.names() == []


@everywhere
async def test_a_connection_without_one_is_committed(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        with flavour.sync_engine.connect() as connection:
            use(session, connection)
            session.execute(text("SELECT 1"), bind_arguments={"bind": connection})
            session.commit()

    reply, _ = await post_noting_unit(flavour, body)

    assert (reply.status, observer.names()) == (200, ["by the driver"])


@only(*SYNC, "pymysql")
async def test_a_database_that_was_given_one_leaves_it_to_its_owner(
    flavour: Flavour, observer: Observer
) -> None:
    def body() -> None:
        with flavour.db.engine.begin() as connection:
            maker: Any = sessionmaker(connection)
            with Database(maker).transaction() as session:
                add_item(session)

    await to_thread.run_sync(body)

    assert observer.names() == ["one"]


# AUTOCOMMIT


async def autocommitted(
    flavour: Flavour, body: Callable[[Session], object]
) -> tuple[int, Outcome | None, list[str]]:
    """The status, the outcome and the hooks of a unit in AUTOCOMMIT."""
    hooks: list[str] = []

    def work(session: Session) -> None:
        session.connection(execution_options=AUTOCOMMIT)
        current_unit().on_rollback(hooks.append, "rolled back")
        body(session)

    reply, unit = await post_noting_unit(flavour, work)
    return reply.status, unit.outcome, hooks


@only(*POSTGRESQL, *MARIADB)
async def test_what_is_committed_at_once_is_not_rolled_back(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        raise HTTPException(400)

    assert await autocommitted(flavour, body) == (400, Outcome.UNKNOWN, [])
    assert observer.names() == ["one"]


@only(*POSTGRESQL, *MARIADB)
async def test_nor_is_what_the_driver_has_sent(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        send(session, INSERT)
        raise HTTPException(400)

    assert await autocommitted(flavour, body) == (400, Outcome.UNKNOWN, [])
    assert observer.names() == ["by the driver"]


@only(*POSTGRESQL)
async def test_what_a_lost_connection_has_stored_is_not_rolled_back(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        session.execute(STORES_AND_HANGS_UP)

    assert await autocommitted(flavour, body) == (500, Outcome.UNKNOWN, [])
    assert observer.names() == ["one"]


@only(*MARIADB)
async def test_nor_are_the_first_rows_of_a_statement_that_fails(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        rows = [{"id": number, "name": "one"} for number in (1, 2)]
        session.connection().execute(ONE_BY_ONE, rows)

    assert await autocommitted(flavour, body) == (500, Outcome.UNKNOWN, [])
    assert observer.names() == ["one"]


@only(*POSTGRESQL, *MARIADB)
async def test_nor_is_what_a_procedure_has_committed_before_it_fails(
    flavour: Flavour, observer: Observer
) -> None:
    def call_procedure(session: Session) -> None:
        session.execute(text("CALL stores_and_fails()"))

    def create_procedure(session: Session) -> None:
        statement = "CREATE OR REPLACE PROCEDURE stores_and_fails() "
        if session.get_bind().dialect.name == "postgresql":
            statement += f"LANGUAGE plpgsql AS $$ BEGIN {STORES_AND_FAILS} END $$"
        else:
            statement += f"BEGIN {STORES_AND_FAILS} END"
        session.connection().exec_driver_sql(statement)

    await flavour.work(create_procedure)

    found = await autocommitted(flavour, call_procedure)
    assert found == (500, Outcome.UNKNOWN, [])
    assert observer.names() == ["one"]


@only(*POSTGRESQL)
async def test_nor_is_what_a_block_has_committed_before_it_fails(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        session.execute(text(f"DO $$ BEGIN {STORES_AND_FAILS} END $$"))

    assert await autocommitted(flavour, body) == (500, Outcome.UNKNOWN, [])
    assert observer.names() == ["one"]


@only("psycopg", "psycopg-async")
async def test_nor_is_what_the_first_of_several_statements_have_committed(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        session.execute(text(STORES_AND_FAILS))

    assert await autocommitted(flavour, body) == (500, Outcome.UNKNOWN, [])
    assert observer.names() == ["one"]


@only(*POSTGRESQL, *MARIADB)
async def test_a_statement_that_the_database_refuses_has_stored_nothing(
    flavour: Flavour,
) -> None:
    def body(session: Session) -> None:
        session.execute(text("INSERT INTO item (no_such_column) VALUES (1)"))

    _, outcome, hooks = await autocommitted(flavour, body)

    assert (outcome, hooks) == (Outcome.ROLLED_BACK, ["rolled back"])


@only(*POSTGRESQL, *MARIADB)
async def test_a_unit_that_has_only_read_is(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        names(session)
        raise HTTPException(400)

    _, outcome, hooks = await autocommitted(flavour, body)

    assert (outcome, hooks) == (Outcome.ROLLED_BACK, ["rolled back"])
