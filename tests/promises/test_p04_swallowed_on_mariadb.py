"""P4 on MariaDB: an error says nothing of the transaction, and the next one begins."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import insert, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.flavours import FLAVOURS, MARIADB, Flavour, Observer, everywhere, only
from support.holding import holding
from support.models import Item, add_item
from support.rivals import (
    Lose,
    Rival,
    lose_deadlock,
    lose_patience,
    lose_race,
    rival,
    set_for_this_connection,
)
from support.swallowing import (
    core,
    plain_text,
    post,
    post_noting_unit,
    write_and_swallow,
    wrong_sql,
)
from unitwork import (
    CommitUnknownError,
    DBSessionMiddleware,
    UnexpectedRollbackError,
)


def swallow(
    lose: Lose, other: Rival, then: Callable[[Session], object] = lambda session: None
) -> Callable[[Session], str]:
    """Give a body that adds an item, loses, swallows the error, and does *then*."""

    def body(session: Session) -> str:
        add_item(session)
        with pytest.raises(DBAPIError):
            lose(session, other)
        then(session)
        return "all is well"

    return body


def assert_lost(reply: Reply, code: int) -> None:
    assert (reply.status, reply.complete) == (500, True)
    assert isinstance(reply.error, UnexpectedRollbackError)
    assert_caused_by(reply.error, code)


def assert_caused_by(error: Exception, code: int) -> None:
    cause = error.__cause__
    assert isinstance(cause, DBAPIError)
    assert cause.orig is not None
    assert cause.orig.args[0] == code


each_loss = pytest.mark.parametrize(
    ("lose", "code"), [(lose_deadlock, 1213), (lose_race, 1020)]
)


def write_more(session: Session) -> None:
    with pytest.raises(UnexpectedRollbackError):
        plain_text(session)


@only(*MARIADB)
@each_loss
@pytest.mark.parametrize("then", [str, write_more, Session.commit])
async def test_what_mariadb_has_rolled_back_by_itself_is_no_success(
    flavour: Flavour,
    observer: Observer,
    lose: Lose,
    code: int,
    then: Callable[[Session], object],
) -> None:
    with rival(flavour) as other:
        reply = await post(flavour, swallow(lose, other, then))

    assert_lost(reply, code)
    assert "one" not in observer.names()


def swallow_inside(session: Session, lose: Callable[[], None]) -> None:
    with session.begin_nested(), pytest.raises(DBAPIError):
        lose()


def swallow_around(session: Session, lose: Callable[[], None]) -> None:
    with suppress(DBAPIError), session.begin_nested():
        lose()


@only(*MARIADB)
@each_loss
@pytest.mark.parametrize("nest", [swallow_inside, swallow_around])
async def test_a_savepoint_saves_nothing_of_it(
    flavour: Flavour, observer: Observer, lose: Lose, code: int, nest: Any
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with suppress(UnexpectedRollbackError):
            nest(session, lambda: lose(session, other))
        with suppress(UnexpectedRollbackError):
            add_item(session, "two")

    with rival(flavour) as other:
        reply = await post(flavour, body)

    assert_lost(reply, code)
    assert not {"one", "two"} & set(observer.names())


@only(*MARIADB)
async def test_a_savepoint_that_is_gone_means_that_all_is_lost(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        session.execute(text("SAVEPOINT mine"))
        with pytest.raises(DBAPIError):
            wrong_sql(session)
        session.execute(text("ROLLBACK"))  # as an error would that was not reported
        with pytest.raises(DBAPIError, match="mine does not exist"):
            session.execute(text("ROLLBACK TO SAVEPOINT mine"))
        with suppress(UnexpectedRollbackError):
            add_item(session, "two")

    reply = await post(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert (reply.status, observer.names()) == (500, [])


PROCEDURE = """
CREATE OR REPLACE PROCEDURE careful() BEGIN
    DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;
    INSERT INTO item (name) VALUES ('red');
END
"""


@only(*MARIADB)
@pytest.mark.parametrize("then", [str, write_more])
async def test_what_a_procedure_has_ended_is_no_success(
    flavour: Flavour, observer: Observer, then: Callable[[Session], object]
) -> None:
    def call_procedure(session: Session, other: Rival) -> None:
        other.query(PROCEDURE)
        session.execute(text("CALL careful()"))

    with rival(flavour) as other:
        work = swallow(call_procedure, other, then)
        reply, _ = await post_noting_unit(flavour, work)

    assert isinstance(reply.error, CommitUnknownError)  # it might have committed
    assert_caused_by(reply.error, 1062)
    assert observer.names() == ["red", "blue"]


@only(*MARIADB)
async def test_a_bulk_insert_that_fails_may_cost_everything(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        set_for_this_connection(session, "unique_checks = 0, foreign_key_checks = 0")
        with pytest.raises(DBAPIError):
            session.execute(text("INSERT INTO bulk VALUES (1), (2), (1)"))

    with rival(flavour) as other:
        other.query("CREATE OR REPLACE TABLE bulk (id int PRIMARY KEY)")
        reply = await post(flavour, body)

    # The server says that the transaction goes on, and in some versions it does.
    assert ("one" in observer.names()) is (reply.status == 200)


def wrong_value(session: Session) -> None:
    session.execute(insert(Item).values(name="\ud800"))  # no driver can encode it


@everywhere
@pytest.mark.parametrize("before", [[], ["zero"]])
async def test_what_never_reached_the_server_costs_nothing(
    flavour: Flavour, observer: Observer, before: list[str]
) -> None:
    def body(session: Session) -> None:
        for name in before:
            add_item(session, name)
        with pytest.raises((UnicodeEncodeError, DBAPIError)):
            wrong_value(session)
        add_item(session)

    reply = await post(flavour, body)

    assert (reply.status, observer.names()) == (200, [*before, "one"])


@only("sqlite3", "aiosqlite", *MARIADB)
async def test_an_error_of_the_first_statement_costs_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        with pytest.raises(DBAPIError):
            wrong_sql(session)
        add_item(session)

    reply = await post(flavour, body)

    assert (reply.status, observer.names()) == (200, ["one"])


@only(*MARIADB)
async def test_a_function_that_does_not_exist_costs_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        write_and_swallow(wrong_sql)(session)
        with pytest.raises(DBAPIError, match="1305"):
            session.execute(text("SELECT nothing()"))

    reply = await post(flavour, body)

    assert (reply.status, observer.names()) == (200, ["one"])


@only(*MARIADB)
@each_loss
async def test_after_a_rollback_of_its_own_it_may_begin_again(
    flavour: Flavour, observer: Observer, lose: Lose, code: int
) -> None:
    def again(session: Session) -> None:
        session.rollback()
        add_item(session, "two")

    with rival(flavour) as other:
        reply = await post(flavour, swallow(lose, other, again))

    assert reply.status == 200
    assert {"one", "two"} & set(observer.names()) == {"two"}


@only(*MARIADB)
async def test_a_lock_that_was_not_to_be_had_costs_its_statement_alone(
    flavour: Flavour, observer: Observer
) -> None:
    with rival(flavour) as other:
        reply = await post(flavour, swallow(lose_patience, other))

    assert (reply.status, observer.names()) == (200, ["red", "blue", "one"])


@pytest.fixture(scope="module")
def strict_server() -> Iterator[str]:
    """The URL of a MariaDB that rolls everything back after such a time-out."""
    launcher = Path(__file__).parents[2] / "tools/mariadb.py"
    command = [launcher, "--innodb-rollback-on-timeout", "--", "sh", "-c", TELL]
    with subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().decode().strip()


TELL = 'echo "$UNITWORK_TEST_MARIADB"; read -r _'


@pytest.fixture
async def strict(flavour: Flavour, strict_server: str) -> AsyncIterator[Flavour]:
    there = make_url(strict_server).set(drivername=FLAVOURS[flavour.name])
    strict = replace(flavour, url=there.render_as_string(False)).another()
    await strict.create_tables()
    yield strict
    await strict.dispose()


@only(*MARIADB)
@pytest.mark.parametrize("then", [str, write_more])
async def test_it_costs_everything_where_the_server_says_so(
    strict: Flavour, then: Callable[[Session], object]
) -> None:
    with rival(strict) as other:
        reply = await post(strict, swallow(lose_patience, other, then))

    assert_lost(reply, 1205)
    assert Observer(strict.url).names() == ["red", "blue"]


@only("psycopg", "psycopg-async", "asyncpg")
async def test_without_a_transaction_an_error_costs_its_own_statement_only(
    flavour: Flavour, observer: Observer
) -> None:
    autocommit = flavour.another(isolation_level="AUTOCOMMIT")

    def body(session: Session) -> None:
        write_and_swallow(core)(session)
        add_item(session, "two")

    reply = await post(autocommit, body)
    await autocommit.dispose()

    assert (reply.status, observer.names()) == (200, ["one", "two"])


@only("aiosqlite", "psycopg-async", "asyncpg", "asyncmy")
async def test_a_swallowed_cancellation_of_a_statement_is_no_success(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    with holding(flavour, seconds=2.0) as hold:  # aiosqlite waits for it
        await flavour.dispose()

        @app.post("/")
        async def endpoint() -> None:
            session = flavour.db.current
            await flavour.do(session, add_item)
            task = asyncio.create_task(flavour.do(session, hold.execute))
            await hold.reached()
            task.cancel()
            await asyncio.wait((task,))

        reply = await call(app, "POST", "/")

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert (reply.status, observer.names()) == (500, [])
