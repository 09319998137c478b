"""A request is run again as the page says."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from support.asgi import call
from support.manual import Page
from unitwork import RetryPolicy, TransactionOptions, classify
from unitwork.testing import commit_faults, no_waits


class Conflict(Exception):
    """A serialization failure, as psycopg raises it."""

    sqlstate = "40001"
    __module__ = "psycopg.errors"


CONFLICT = OperationalError("COMMIT", None, Conflict())


@pytest.fixture
def main(page: Page) -> Iterator[Any]:
    """The page, with an account of 100."""
    main = page.run()

    async def create_account() -> None:
        async with main.db.transaction() as session:
            table = "account (id INTEGER PRIMARY KEY, balance INTEGER)"
            await session.execute(text(f"CREATE TABLE {table}"))
            await session.execute(text("INSERT INTO account VALUES (1, 100)"))

    run(main, create_account)
    with no_waits():
        yield main


def run(main: Any, work: Callable[[], Awaitable[Any]]) -> Any:
    """Run *work* in an event loop of its own."""

    async def run_and_dispose() -> Any:
        try:
            return await work()
        finally:
            await main.db.dispose()

    return asyncio.run(run_and_dispose())


def test_runs_a_request_again(main: Any) -> None:
    with commit_faults(main.db, CONFLICT, None):
        reply = run(main, lambda: call(main.app, "POST", "/transfer?amount=30"))

    assert (reply.status, reply.json) == (200, 70)


def test_does_not_repeat_a_side_effect(main: Any) -> None:
    reply = run(main, lambda: call(main.app, "POST", "/pay"))

    assert reply.json == "attempt 1, the last: True"


def test_reports_each_retry(main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    main.patient.post("/transfer")(main.transfer)

    with commit_faults(main.db, CONFLICT, None):
        run(main, lambda: call(main.patient, "POST", "/transfer?amount=30"))

    assert capsys.readouterr().out.startswith("attempt 1 of 5 at /transfer: ")


def test_runs_work_outside_requests_again(main: Any) -> None:
    with commit_faults(main.db, CONFLICT, None):
        assert run(main, main.main) == 130


def test_has_a_rule_that_retries_a_locked_database(main: Any) -> None:
    import sqlite3

    locked = sqlite3.OperationalError("database is locked")
    locked.sqlite_errorcode = sqlite3.SQLITE_BUSY
    error = OperationalError("INSERT", None, locked)

    assert not classify(error).retryable
    assert main.policy.retryable(error) is error


def test_lists_every_setting_with_its_default(page: Page) -> None:
    page.run()

    table = page.text.partition("| `RetryPolicy` |")[2].partition("\n\n")[0]
    listed = re.findall(r"(?m)^\| `(\w+)` \| `?([^|`]+)`? \|", table)
    defaults = {name: ast.literal_eval(value.strip()) for name, value in listed}
    assert defaults == {field.name: field.default for field in fields(RetryPolicy)}
    assert TransactionOptions().attempts is None  # which is 1, as the page says
