"""P4: what the server rolled back behind our back is never reported as committed."""

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
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy import insert, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.flavours import (
    FLAVOURS,
    MARIADB,
    Flavour,
    Observer,
    everywhere,
    only,
)
from support.holding import holding
from support.models import Item, add_item
from support.rivals import (
    Lose,
    Rival,
    lose_deadlock,
    lose_patience,
    lose_race,
    rival,
)
from unitwork import DatabaseSettings, DBSessionMiddleware, UnexpectedRollbackError


def core(session: Session) -> None:
    session.execute(insert(Item).values(name="one"))


def plain_text(session: Session) -> None:
    session.execute(text("INSERT INTO item (name) VALUES ('one')"))


def flush(session: Session) -> None:
    session.add(Item(name="one"))
    session.flush()


def wrong_sql(session: Session) -> None:
    session.execute(text("SELECT * FROM nowhere"))


def write_and_swallow(failing: Callable[[Session], None]) -> Callable[[Session], str]:
    def body(session: Session) -> str:
        add_item(session)
        with pytest.raises(DBAPIError):
            failing(session)
        return "all is well"

    return body


async def post(flavour: Flavour, body: Callable[[Session], object]) -> Reply:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(flavour.endpoint(body))
    return await call(app, "POST", "/")


@only("psycopg", "psycopg-async", "asyncpg")
@pytest.mark.parametrize("failing", [core, plain_text, wrong_sql, flush])
async def test_a_swallowed_statement_error_is_no_success(
    flavour: Flavour, observer: Observer, failing: Callable[[Session], None]
) -> None:
    reply = await post(flavour, write_and_swallow(failing))

    assert (reply.status, reply.complete) == (500, True)
    assert isinstance(reply.error, UnexpectedRollbackError)
    assert isinstance(reply.error.__cause__, DBAPIError)
    assert observer.names() == []


@only("sqlite3", "aiosqlite", *MARIADB)
@pytest.mark.parametrize("failing", [core, plain_text, wrong_sql])
async def test_others_keep_the_work_before_a_swallowed_statement_error(
    flavour: Flavour, observer: Observer, failing: Callable[[Session], None]
) -> None:
    reply = await post(flavour, write_and_swallow(failing))

    assert (reply.status, observer.names()) == (200, ["one"])


@only("sqlite3", "aiosqlite")
@pytest.mark.parametrize("later", [wrong_sql, lambda session: add_item(session, "two")])
async def test_what_sqlite_has_rolled_back_by_itself_is_no_success(
    flavour: Flavour, observer: Observer, later: Callable[[Session], None]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with pytest.raises(DBAPIError, match="UNIQUE"):
            session.execute(text("INSERT OR ROLLBACK INTO item (name) VALUES ('one')"))
        with suppress(UnexpectedRollbackError):
            later(session)  # SQLite would commit it at once, outside any transaction

    reply = await post(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert isinstance(reply.error.__cause__, IntegrityError)
    assert (reply.status, observer.names()) == (500, [])


FILL = """
WITH RECURSIVE one (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM one WHERE n < 1000)
INSERT INTO item (name) SELECT printf('%0100d', n) FROM one
"""


@only("sqlite3", "aiosqlite")
async def test_sqlite_keeps_the_work_before_a_disk_that_was_full(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        session.execute(text("PRAGMA max_page_count = 1"))  # no more than there are
        with pytest.raises(DBAPIError, match="full"):
            session.execute(text(FILL))

    small = flavour.another(pool_size=1, max_overflow=0)
    reply = await post(small, body)
    await small.dispose()

    assert (reply.status, observer.names()) == (200, ["one"])


@only("sqlite3", "aiosqlite")
async def test_an_error_before_sqlites_driver_has_begun_costs_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        with pytest.raises(DBAPIError):
            wrong_sql(session)
        add_item(session)

    legacy = flavour.another(settings=DatabaseSettings(sqlite_defaults=False))
    reply = await post(legacy, body)
    await legacy.dispose()

    assert (reply.status, observer.names()) == (200, ["one"])


@everywhere
async def test_a_swallowed_flush_error_is_no_success(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await post(flavour, write_and_swallow(flush))

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert isinstance(reply.error.__cause__, IntegrityError)
    assert (reply.status, observer.names()) == (500, [])


@everywhere
@pytest.mark.parametrize("failing", [core, plain_text, wrong_sql, flush])
async def test_an_error_that_a_savepoint_undid_does_not_matter(
    flavour: Flavour, observer: Observer, failing: Callable[[Session], None]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with pytest.raises(DBAPIError), session.begin_nested():
            failing(session)

    reply = await post(flavour, body)

    assert (reply.status, observer.names()) == (200, ["one"])


@everywhere
@pytest.mark.parametrize("failing", [core, flush])
async def test_after_a_rollback_of_its_own_the_application_may_go_on(
    flavour: Flavour, observer: Observer, failing: Callable[[Session], None]
) -> None:
    def body(session: Session) -> None:
        write_and_swallow(failing)(session)
        session.rollback()
        add_item(session, "two")

    reply = await post(flavour, body)

    assert (reply.status, observer.names()) == (200, ["two"])


@only("psycopg", "psycopg-async", "asyncpg")
async def test_a_commit_by_the_application_itself_is_refused_as_well(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        write_and_swallow(core)(session)
        session.commit()

    reply = await post(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert observer.names() == []


@only("psycopg", "psycopg-async", "asyncpg")
async def test_a_transaction_block_raises_too(
    flavour: Flavour, observer: Observer
) -> None:
    with pytest.raises(UnexpectedRollbackError) as caught:
        await flavour.work(write_and_swallow(core))

    assert isinstance(caught.value.__cause__, IntegrityError)
    assert observer.names() == []


@only("psycopg", "psycopg-async", "asyncpg")
async def test_an_answer_that_is_an_error_anyway_stays(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> JSONResponse:
        write_and_swallow(core)(session)
        return JSONResponse({"detail": "taken"}, 409)

    reply = await post(flavour, body)

    assert (reply.status, reply.json, reply.error) == (409, {"detail": "taken"}, None)
    assert observer.names() == []


@only("psycopg", "psycopg-async", "asyncpg")
async def test_the_application_can_answer_it(flavour: Flavour) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(flavour.endpoint(write_and_swallow(core)))

    @app.exception_handler(UnexpectedRollbackError)
    async def sorry(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"lost": type(error.__cause__).__name__}, 503)

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.json) == (503, {"lost": "IntegrityError"})


@only("psycopg", "psycopg-async", "asyncpg")
async def test_the_cause_is_the_first_error_and_not_what_followed_from_it(
    flavour: Flavour,
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        for failing in (core, plain_text, wrong_sql):
            with pytest.raises(DBAPIError):
                failing(session)

    reply = await post(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert isinstance(reply.error.__cause__, IntegrityError)


@only("asyncpg")
async def test_a_value_that_never_reached_the_server_costs_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with pytest.raises(DBAPIError):
            session.execute(insert(Item).values(name=object()))

    reply = await post(flavour, body)

    assert (reply.status, observer.names()) == (200, ["one"])


# MariaDB: an error says nothing of the transaction, and the next statement begins anew


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
    cause = reply.error.__cause__
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
        session.execute(text("ROLLBACK"))  # as an error would of which nobody knows
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
async def test_what_a_procedure_has_rolled_back_is_no_success(
    flavour: Flavour, observer: Observer, then: Callable[[Session], object]
) -> None:
    def call_procedure(session: Session, other: Rival) -> None:
        other.query(PROCEDURE)
        session.execute(text("CALL careful()"))

    with rival(flavour) as other:
        reply = await post(flavour, swallow(call_procedure, other, then))

    assert_lost(reply, 1062)
    assert observer.names() == ["red", "blue"]


@only(*MARIADB)
async def test_a_bulk_insert_that_fails_may_cost_everything(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        session.execute(text("SET unique_checks = 0, foreign_key_checks = 0"))
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

    with holding(flavour) as hold:
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
