"""What the databases get for the options of the page, and what they refuse."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from sqlalchemy import event, text

from support.asgi import Reply, call
from support.manual import Page
from support.pages import postgresql, statements
from unitwork import Database, TransactionOptions, UsageError
from unitwork.options import BeginOptions

SHOWN = re.compile(r"(?s)```sql\n(.*?)```")
SERIALIZABLE = {"isolation_level": "SERIALIZABLE", "read_only": True}


@pytest.fixture
def main(page: Page, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page, in a database of its own."""
    with postgresql("asyncpg") as url:
        monkeypatch.setenv("DATABASE_URL", url)
        yield page.run()


def request(main: Any, path: str, method: str = "GET") -> Reply:
    """Make a request in an event loop of its own."""

    async def make() -> Reply:
        try:
            return await call(main.app, method, path)
        finally:
            await main.db.dispose()

    return asyncio.run(make())


def test_sends_postgresql_what_the_page_shows(page: Page, main: Any) -> None:
    with statements(main.db.engine) as sent:
        reply = request(main, "/report")

    _, *after_begin = SHOWN.findall(page.text)[0].splitlines()
    assert reply.json == 42
    assert [sql for sql in sent if sql in after_begin] == after_begin


def test_sends_sqlite_what_the_page_shows(page: Page, main: Any) -> None:
    lite, sent = Database("sqlite:///options.db"), list[str]()

    @event.listens_for(lite.engine, "connect")
    def trace(connection: Any, record: Any) -> None:
        connection.set_trace_callback(sent.append)

    for _ in range(2):
        sent.clear()
        with lite.transaction(**SERIALIZABLE, lock_timeout=2.0) as session:
            session.execute(text("SELECT 40 + 2"))
    lite.dispose()

    asks = "VACUUM INTO NULL"  # for unread rows, when the connection is returned
    changes = [sql for sql in sent if "PRAGMA" not in sql or "=" in sql]
    changes = [sql for sql in changes if sql != asks]
    assert changes == SHOWN.findall(page.text)[2].splitlines()


def test_sends_mariadb_what_the_page_shows(page: Page, main: Any, mariadb: str) -> None:
    db, sent = Database(mariadb.replace("mysql:", "mysql+pymysql:")), list[str]()

    @event.listens_for(db.engine, "after_cursor_execute")
    def executed(connection: Any, cursor: Any, *rest: Any) -> None:
        sent.append(vars(cursor)["_executed"])

    with db.transaction(**SERIALIZABLE, timeout=2.0) as session:
        session.execute(text("SELECT 40 + 2"))
    db.dispose()

    *shown, commit = SHOWN.findall(page.text)[1].splitlines()
    assert commit == "COMMIT"
    assert [sql for sql in sent if sql in shown] == shown


def test_overrides_the_options_of_a_router(main: Any) -> None:
    assert request(main, "/reports/count").json == "on"
    assert request(main, "/reports/count", "POST").json == "off"


def test_answers_a_write_where_it_only_reads(main: Any) -> None:
    main.app.middleware_stack = None  # as if the handler had been there before

    assert request(main, "/last-seen").status == 405


def test_begins_a_block_with_its_options(main: Any) -> None:
    async def run() -> Any:
        try:
            return await main.totals()
        finally:
            await main.db.dispose()

    assert asyncio.run(run()) == 1


@pytest.mark.parametrize("option", [{"deferrable": True}, {"timeout": 1.0}])
def test_refuses_on_sqlite_what_it_lacks(main: Any, option: Any) -> None:
    db = Database("sqlite://")
    with pytest.raises(UsageError), db.transaction(**option) as session:
        session.execute(text("SELECT 1"))
    db.dispose()


def test_lists_every_option(page: Page, main: Any) -> None:
    table = page.text.partition("| option | what it does |")[2].partition("\n\n")[0]
    listed = re.findall(r"(?m)^\| `(\w+)` \|", table)

    assert listed == [field.name for field in fields(TransactionOptions)]
    assert set(listed[:7]) == set(BeginOptions.__annotations__)
    assert "takes the first seven options" in page.text
