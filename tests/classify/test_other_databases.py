"""Databases with the protocol of PostgreSQL or MySQL: their errors, by real drivers.

Here PostgreSQL and MariaDB raise them; the databases themselves are not at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from anyio import to_thread
from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

from support import outside
from support.flavours import MARIADB, POSTGRESQL, Flavour, Observer, only
from support.models import add_item
from unitwork import CommitUnknownError, DatabaseSettings
from unitwork._transaction.demotion import has_transaction_ids

pytestmark = pytest.mark.anyio

each_driver = only(*POSTGRESQL)
CONFLICTS = {
    "CockroachDB": ("40001", "restart transaction: TransactionRetryWithProtoRefresh"),
    "YugabyteDB": ("40001", "could not serialize access due to concurrent update"),
    "YugabyteDB, deadlock": ("40P01", "deadlock detected"),
    "Aurora DSQL": ("40001", "change conflicts with another transaction (OC000)"),
    "Aurora DSQL, data": ("OC000", "change conflicts with another transaction"),
    "Aurora DSQL, schema": ("OC001", "schema has been updated by another transaction"),
}
CREATE = """
CREATE TABLE IF NOT EXISTS other_database (id int);
CREATE OR REPLACE FUNCTION other_database_fails() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN
  IF current_setting('unitwork.code', true) <> '' THEN
    RAISE EXCEPTION USING ERRCODE = current_setting('unitwork.code'),
      MESSAGE = current_setting('unitwork.message');
  END IF;
  RETURN NULL;
END$$;
CREATE OR REPLACE FUNCTION other_database_raise(code text, message text) RETURNS int
LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message;
END$$;
CREATE SCHEMA other_database;
CREATE FUNCTION other_database.txid_current() RETURNS bigint LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION USING ERRCODE = '0A000', MESSAGE = 'unimplemented'; END$$;
CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON other_database
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION other_database_fails();
"""
DROP = """
DROP TABLE other_database;
DROP FUNCTION other_database_fails, other_database_raise;
DROP SCHEMA other_database CASCADE;
"""
AT_COMMIT = text(
    "SELECT set_config('unitwork.code', :code, true),"
    " set_config('unitwork.message', :message, true)"
)
NOW = text("SELECT other_database_raise(:code, :message)")


@pytest.fixture
def other(flavour: Flavour) -> Iterator[Flavour]:
    """PostgreSQL, which raises the errors of another database when it is to."""
    plain = make_url(flavour.url).set(drivername="postgresql").render_as_string(False)
    outside.query(plain, CREATE)
    yield flavour
    outside.query(plain, DROP)


class Failing:
    """Work whose first attempt fails with the error of a database."""

    def __init__(self, code: str, message: str, statement: Any) -> None:
        self.parameters = {"code": code, "message": message}
        self.statement = statement
        self.attempts = 0

    def __call__(self, session: Session) -> None:
        self.attempts += 1
        add_item(session)
        session.execute(text("INSERT INTO other_database VALUES (1)"))
        if self.attempts == 1:
            session.execute(self.statement, self.parameters)


async def run(flavour: Flavour, work: Any) -> None:
    """Run *work* with two attempts."""
    if not flavour.is_async:
        await to_thread.run_sync(lambda: flavour.db.run(work, attempts=2))
        return

    async def in_greenlet(session: Any) -> None:
        await session.run_sync(work)

    await flavour.db.run(in_greenlet, attempts=2)


@each_driver
@pytest.mark.parametrize("statement", [NOW, AT_COMMIT], ids=["statement", "commit"])
@pytest.mark.parametrize("name", CONFLICTS)
async def test_a_conflict_is_retried_at_a_statement_and_at_commit(
    other: Flavour, observer: Observer, name: str, statement: Any
) -> None:
    work = Failing(*CONFLICTS[name], statement)

    await run(other, work)

    assert (work.attempts, observer.names()) == (2, ["one"])


@each_driver
async def test_a_result_that_is_ambiguous_is_unknown_and_not_retried(
    other: Flavour,
) -> None:
    """CockroachDB, which has no ids of transactions to look up."""
    work = Failing("40003", "result is ambiguous", AT_COMMIT)
    there = other.another(settings=DatabaseSettings(verify_commit=False))

    with pytest.raises(CommitUnknownError):
        await run(there, work)

    assert work.attempts == 1
    await there.dispose()


@each_driver
async def test_a_server_that_suspends_itself_ends_connections_and_not_units(
    flavour: Flavour, observer: Observer
) -> None:
    """Neon."""
    await flavour.work(lambda session: add_item(session, "before"))
    observer.terminate_all()

    await flavour.work(lambda session: add_item(session, "after"))

    assert observer.names() == ["before", "after"]


@each_driver
async def test_a_database_without_transaction_ids_is_used_without_them(
    other: Flavour, observer: Observer
) -> None:
    """CockroachDB and Aurora DSQL have no `txid_current()`."""
    path = "other_database, pg_catalog, public"
    if other.name == "asyncpg":
        arguments: dict[str, Any] = {"server_settings": {"search_path": path}}
    else:
        arguments = {"options": f"-csearch_path={path.replace(' ', '')}"}
    there = other.another(connect_args=arguments)

    for name in "one", "two":
        await there.work(lambda session, name=name: add_item(session, name))

    assert observer.names() == ["one", "two"]
    await there.dispose()


class Reporting:
    """A connection of psycopg whose server reports a version."""

    def __init__(self, version: bytes | None) -> None:
        self.pgconn = self
        self.version = version

    def parameter_status(self, name: bytes) -> bytes | None:
        return self.version if name == b"server_version" else None


@pytest.mark.parametrize(
    ("version", "has_ids"),
    [(b"15.18", True), (None, True), (b"15.2-YB-2.25.1.0-b0", False)],
)
def test_ids_of_yugabytedb_are_not_trusted(version: bytes, has_ids: bool) -> None:
    assert has_transaction_ids(Reporting(version)) is has_ids


@only(*MARIADB)
@pytest.mark.parametrize("code", [8002, 8005, 8022, 8028, 9007])
async def test_a_conflict_of_tidb_is_retried(
    flavour: Flavour, observer: Observer, code: int
) -> None:
    signal = f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}"
    attempts: list[int] = []

    def work(session: Session) -> None:
        attempts.append(code)
        add_item(session)
        if len(attempts) == 1:
            session.execute(text(signal))

    await run(flavour, work)

    assert (len(attempts), observer.names()) == (2, ["one"])
