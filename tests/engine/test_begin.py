"""BEGIN on a pooled connection: with the transaction id, and on a new one if lost."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from support.flavours import POSTGRESQL, Flavour, Observer, only
from support.pool import eventually
from unitwork._driver import postgresql_begin
from unitwork._transaction.connection_state import loan_of

pytestmark = pytest.mark.anyio

REFUSING = """
CREATE OR REPLACE FUNCTION public.txid_current() RETURNS bigint LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'no ids today'; END$$;
"""
REFUSING_NO_MORE = "DROP FUNCTION public.txid_current()"


async def run_ddl(flavour: Flavour, path: str, statement: str) -> None:
    name = flavour.sync_engine.url.database

    def body(session: Session) -> None:
        session.execute(text(f'ALTER DATABASE "{name}" {path}'))
        session.execute(text(statement))

    await flavour.work(body)


def has_mark(session: Session) -> bool:
    loan = loan_of(session.connection())
    return loan is not None and loan.mark is not None


@only(*POSTGRESQL)
async def test_a_query_of_the_id_that_fails_turns_it_off_for_its_connection_alone(
    flavour: Flavour,
) -> None:
    await run_ddl(flavour, "SET search_path = public, pg_catalog", REFUSING)
    await flavour.dispose()
    found = [await flavour.work(has_mark) for _ in range(2)]
    await run_ddl(flavour, "RESET search_path", REFUSING_NO_MORE)
    found.append(await flavour.work(has_mark))
    await flavour.dispose()

    assert [*found, await flavour.work(has_mark)] == [False, False, False, True]


@only(*POSTGRESQL)
async def test_an_error_of_begin_on_a_connection_that_works_is_raised(
    flavour: Flavour, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(connection: Connection, *_: object) -> None:
        cursor = connection.connection.cursor()
        cursor.execute("SELECT no_such_thing")

    await flavour.work(has_mark)
    opened: list[Any] = []
    event.listen(flavour.sync_engine, "connect", lambda *each: opened.append(each))
    monkeypatch.setattr(postgresql_begin, "begin", refuse)

    with pytest.raises(DBAPIError, match="no_such_thing"):
        await flavour.work(has_mark)
    assert opened == []
    await eventually(lambda: not observer.in_transaction())  # it has been closed


def paused_by(session: Session) -> object:
    """Begin with the transaction id; return what its transport does to pause."""
    driver: Any = session.connection().connection.driver_connection
    return driver._transport.pause_reading.__name__


@only("asyncpg")
async def test_reading_can_be_paused_once_begin_was_answered(flavour: Flavour) -> None:
    assert await flavour.work(has_mark)
    assert await flavour.work(paused_by) == "pause_reading"
