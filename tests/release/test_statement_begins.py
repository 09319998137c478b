"""Release mode "statement": what begins the transaction, and what does not."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    func,
    insert,
    literal_column,
    make_url,
    select,
    text,
)
from sqlalchemy import event as events
from sqlalchemy.exc import IllegalStateChangeError, SQLAlchemyError
from sqlalchemy.orm import Session

from support.databases import check_nothing_is_left
from support.flavours import POSTGRESQL, Flavour, Observer, only
from support.models import Child, Item, add_item, names
from support.pool import eventually
from support.releasing import checked_out, releasing

pytestmark = pytest.mark.anyio

ITEMS = select(Item).order_by(Item.id)
ONE = {"name": "one"}
OF_TEXT = text("SELECT id, name FROM item")
KEEPS_NOTHING = {
    "entities": ITEMS,
    "columns": select(Item.id, Item.name).where(Item.name.like("o%")),
    "aggregates": select(func.count(), func.max(Item.id)).select_from(Item),
    "now": select(func.now()),
    "a join": select(Item).join(Child, isouter=True),
    "a CTE": select(ITEMS.cte()),
    "a subquery": select(Item).where(Item.id.in_(select(Child.parent_id))),
    "a list": select(Item).where(Item.id.in_([1, 2, 3])),
    "a union": select(Item.id).union_all(select(Child.id)),
    "text that only reads": OF_TEXT.execution_options(unitwork_only_reads=True),
    "a function that only reads": select(func.pg_backend_pid()).execution_options(
        unitwork_only_reads=True
    ),
}
INSERTS = text("INSERT INTO item (name) VALUES ('one') RETURNING id, name")
TRUSTED = {"unitwork_only_reads": True}
KEEPS_SOMETHING = {
    "a lock": ITEMS.with_for_update(),
    "a share lock": ITEMS.with_for_update(read=True, key_share=True),
    "text": OF_TEXT,
    "text with columns": OF_TEXT.columns(Item.id, Item.name),
    "text for entities": select(Item).from_statement(OF_TEXT),
    "text in a SELECT": select(literal_column("nextval('item_id_seq')")),
    "a sequence": select(func.nextval("item_id_seq")),
    "a function": select(func.pg_backend_pid()),
    "an advisory lock": select(func.pg_advisory_xact_lock(1)),
    "FROM a function": select(func.generate_series(1, 2).column_valued("n")),
    "a setting": select(func.set_config("unitwork.x", "1", True)),
    "a function in a schema": select(func.pg_catalog.upper("one")),
    "a CTE that writes": select(
        INSERTS.columns(Column("id"), Column("name")).cte("written")
    ),
    "text that lies": INSERTS.execution_options(**TRUSTED),
    "text that locks": text("SELECT id FROM item FOR UPDATE").execution_options(
        **TRUSTED
    ),
    "several in one text": text("SELECT 1; SELECT 2").execution_options(**TRUSTED),
    "server-side rows": ITEMS.execution_options(yield_per=10),
}


async def held_after(released: Flavour, body: Callable[[Session], Any]) -> int:
    async with released.block() as session:
        await released.do(session, body)
        return checked_out(released)


@only(*POSTGRESQL)
@pytest.mark.parametrize("statement", KEEPS_NOTHING.values(), ids=KEEPS_NOTHING)
async def test_what_only_reads_begins_nothing(
    released: Flavour, statement: Any
) -> None:
    assert await held_after(released, lambda s: s.execute(statement).all()) == 0


@only("psycopg")
@pytest.mark.parametrize("statement", KEEPS_SOMETHING.values(), ids=KEEPS_SOMETHING)
async def test_what_may_do_more_begins_the_transaction(
    released: Flavour, statement: Any
) -> None:
    assert await held_after(released, lambda s: s.execute(statement).close()) == 1


@only("asyncpg", "psycopg-async")
async def test_functions_that_write_are_rolled_back(
    released: Flavour, observer: Observer
) -> None:
    def write(session: Session) -> None:
        session.execute(
            text(
                "CREATE FUNCTION w() RETURNS int LANGUAGE sql AS $$"
                "INSERT INTO item (name) VALUES ('one') RETURNING id $$"
            )
        )
        session.commit()
        names(session)
        session.execute(select(func.w()))
        session.rollback()
        session.execute(text("DROP FUNCTION w"))

    await released.work(write)

    assert observer.names() == []


BEGINS: dict[str, Callable[[Session], Any]] = {
    "a flush": add_item,
    "autoflush": lambda s: (s.add(Item(name="one")), names(s)),
    "a read before the flush": lambda s: (
        s.add(Item(name="one")),
        s.execute(ITEMS.execution_options(autoflush=False)),
    ),
    "a connection": lambda s: s.connection(),
    "a connection for a statement": lambda s: s.connection(
        bind_arguments={"clause": ITEMS}
    ),
    "a savepoint": lambda s: (s.begin_nested(), names(s)),
    "begin()": lambda s: (s.begin(), names(s)),
    "get() with a lock": lambda s: s.get(Item, 1, with_for_update=True),
}


@pytest.mark.parametrize("body", BEGINS.values(), ids=BEGINS)
async def test_begins_the_transaction(released: Flavour, body: Any) -> None:
    assert await held_after(released, lambda s: body(s) and None) == 1


async def test_a_read_that_a_flush_makes_is_a_part_of_it(
    released: Flavour, observer: Observer
) -> None:
    def flush(session: Session) -> None:
        @events.listens_for(session, "after_flush_postexec")
        def read(session: Session, context: object) -> None:
            names(session)

        session.add(Item(name="one"))
        session.flush()
        session.rollback()

    await released.work(flush)

    assert observer.names() == []


@only(*POSTGRESQL)
async def test_a_session_whose_listener_prepares_transactions_has_one(
    released: Flavour,
) -> None:
    def listen_and_read(session: Session) -> None:
        @events.listens_for(session, "after_begin")
        def after_begin(session: Session, transaction: Any, connection: Any) -> None:
            connection.exec_driver_sql("SET LOCAL lock_timeout = 7")

        assert names(session) == []
        assert session.scalar(text("SHOW lock_timeout")) == "7ms"

    assert await held_after(released, listen_and_read) == 1


@only(*POSTGRESQL)
async def test_a_listener_that_changes_statements_is_heard(flavour: Flavour) -> None:
    released = releasing(flavour)

    @events.listens_for(released.sync_engine, "before_cursor_execute", retval=True)
    def prefix(*args: Any) -> tuple[str, Any]:
        return args[2].replace("SELECT", "SELECT pg_backend_pid(),", 1), args[3]

    assert await held_after(released, lambda s: s.execute(select(Item.id))) == 1
    await check_nothing_is_left(released)
    await released.dispose()


async def test_rows_are_there_after_the_connection_was_given_back(
    flavour: Flavour, released: Flavour
) -> None:
    def read_late(session: Session) -> list[str]:
        items = session.execute(select(Item.name).order_by(Item.id))
        assert checked_out(released) == 0
        names(session)
        return [row.name for row in items]

    for name in ("one", "two", "three"):
        await flavour.work(lambda s, name=name: add_item(s, name) and None)

    assert await released.work(read_late) == ["one", "two", "three"]


@only("aiosqlite")
async def test_a_statement_beside_the_beginning_is_refused(
    released: Flavour, observer: Observer
) -> None:
    """Else it would be committed at once if BEGIN fails: the lock is held."""
    path = make_url(released.url).database or ""
    await released.work(names)  # connected: it is BEGIN that waits for the lock
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with released.block() as session:
            task = asyncio.create_task(
                released.do(session, lambda s: s.execute(OF_TEXT))
            )
            await eventually(lambda: checked_out(released) == 1)
            refused = pytest.raises(SQLAlchemyError, match="concurrent operations")
            with refused as raised:
                await released.do(session, lambda s: s.execute(insert(Item), ONE))
            # While it connects, SQLAlchemy wraps what a statement raises.
            refusal = getattr(raised.value, "orig", raised.value)
            assert isinstance(refusal, IllegalStateChangeError)
            other.rollback()
            await asyncio.gather(task, return_exceptions=True)  # it may be too late

    assert observer.names() == []
