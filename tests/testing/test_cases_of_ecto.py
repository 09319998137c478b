"""The cases of Ecto's SQL sandbox (integration_test/sql/sandbox.exs), with this one.

- raises if repo doesn't exist
    test_what_is_no_database_is_refused
- raises if repo is not started
    test_a_server_that_is_down_is_noticed_at_the_first_statement
- raises if repo is not using sandbox
    test_a_database_outside_of_the_sandbox_has_no_session_there
- includes link to SQL sandbox on ownership errors
    test_a_refusal_names_the_remedies
- uses the repository when checked out
    test_the_database_is_in_reach_inside_alone
- uses the repository when allowed from another process
    test_another_thread_may_be_allowed
- ... by registered name
    test_a_request_is_allowed_by_the_name_in_its_header
- uses the repository when shared from another process
    test_one_of_another_thread_may_be_shared
- works with a dynamic repo
    test_a_database_whose_engine_is_bound_late
- works with a repo pid
    test_a_second_database_over_the_same_engine_is_refused
- runs inside a sandbox that is rolled back on checkin
    test_what_one_stores_the_next_does_not_see
- runs inside a sandbox that may be disabled
    test_what_was_stored_outside_is_deleted_inside_alone
- ... with caller data when preloading associations
    does not apply: relationships are loaded by the session that the caller has,
    in no task of their own
- ... with custom ownership timeout
    test_a_unit_that_is_waited_for_too_long_is_named
- does not taint the sandbox on query errors
    test_a_statement_that_fails_taints_nothing
- with custom isolation level
    test_an_isolation_level_is_accepted
- disconnects on transaction timeouts
    test_a_unit_that_takes_too_long_is_rolled_back
- with transaction inside checkout
    test_a_transaction_in_a_connection_of_the_engine
- with checkout inside transaction
    test_a_connection_of_the_engine_in_a_unit
- start_owner!/2 checks out the connection
    test_a_sandbox_of_an_exit_stack
- start_owner!/2 can set shared mode
    test_one_of_another_thread_may_be_shared
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event, Thread
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, delete, text
from sqlalchemy.exc import DBAPIError, OperationalError

from support.flavours import Flavour, Observer, only
from support.models import Item, add_item, names
from unitwork import (
    Database,
    DBSessionMiddleware,
    DeadlineExceededError,
    UsageError,
)
from unitwork.testing import SandboxError, sandbox

pytestmark = only("psycopg")


@pytest.fixture
def db(flavour: Flavour) -> Iterator[Database]:
    yield flavour.db
    flavour.db.dispose()


def stored(db: Database) -> list[str]:
    with db.transaction() as session:
        return names(session)


def store(db: Database, name: str = "one") -> None:
    with db.transaction() as session:
        add_item(session, name)


def in_a_thread(function: Callable[..., Any], *args: object) -> Any:
    """Call it in a thread that does not have the context of the test."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(function, *args).result()


# Errors


def test_what_is_no_database_is_refused(db: Database) -> None:
    with pytest.raises(UsageError, match="is no database"):
        sandbox("the repository")  # type: ignore[call-overload]


def test_a_server_that_is_down_is_noticed_at_the_first_statement(db: Database) -> None:
    down = Database(db.engine.url.set(port=1))
    with sandbox(down), pytest.raises(OperationalError):
        stored(down)
    down.dispose()


def test_a_database_outside_of_the_sandbox_has_no_session_there(db: Database) -> None:
    other = Database("sqlite://", name="other")
    with sandbox(db) as box, pytest.raises(UsageError, match="not in this sandbox"):
        box.session_of(other)


def test_a_refusal_names_the_remedies(db: Database) -> None:
    with sandbox(db), pytest.raises(SandboxError, match=r"headers.*allow.*shared"):
        in_a_thread(stored, db)


# Who belongs to it


def test_the_database_is_in_reach_inside_alone(db: Database) -> None:
    with sandbox(db) as box:
        with pytest.raises(SandboxError, match="belongs to none"):
            in_a_thread(stored, db)
        assert stored(db) == []
        bound = box.bind(stored)
    with pytest.raises(SandboxError, match="its test is over"):
        in_a_thread(bound, db)


def test_another_thread_may_be_allowed(db: Database) -> None:
    with sandbox(db) as box:
        store(db)

        assert in_a_thread(box.bind(stored), db) == ["one"]


def test_a_request_is_allowed_by_the_name_in_its_header(db: Database) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=db)
    app.get("/")(lambda: stored(db))
    client = TestClient(app)
    with sandbox(db) as box:
        store(db)
        reply = in_a_thread(lambda: client.get("/", headers=box.headers))

    assert reply.json() == ["one"]


def test_one_of_another_thread_may_be_shared(db: Database) -> None:
    opened, done = Event(), Event()

    def own() -> None:
        with sandbox(db) as box, box.shared():
            store(db)
            opened.set()
            done.wait(10)

    thread = Thread(target=own)
    thread.start()
    opened.wait(10)
    found = [stored(db), in_a_thread(stored, db)]
    done.set()
    thread.join()

    assert found == [["one"], ["one"]]


def test_a_database_whose_engine_is_bound_late(db: Database) -> None:
    engines = [create_engine(db.engine.url)]
    late = Database(lambda: engines[0], name="late")
    with sandbox(late):
        store(late)
        assert stored(late) == ["one"]

    assert stored(late) == []
    engines[0].dispose()


def test_a_second_database_over_the_same_engine_is_refused(db: Database) -> None:
    second = Database(db.engine, name="second")
    with sandbox(db) as box:
        with pytest.raises(SandboxError, match="past its sandbox"):
            stored(second)
        with pytest.raises(SandboxError):
            box.check()


# Savepoints


def test_what_one_stores_the_next_does_not_see(db: Database) -> None:
    with sandbox(db):
        store(db)
        assert stored(db) == ["one"]
    with sandbox(db):
        assert stored(db) == []


def test_what_was_stored_outside_is_deleted_inside_alone(
    db: Database, observer: Observer
) -> None:
    store(db)
    with sandbox(db), db.transaction() as session:
        session.execute(delete(Item))
        assert names(session) == []

    assert observer.names() == ["one"]


def test_a_unit_that_is_waited_for_too_long_is_named(db: Database) -> None:
    def wait() -> None:
        with db.transaction() as session:
            names(session)

    with sandbox(db, timeout=0.2) as box, db.transaction() as session:
        add_item(session)
        with pytest.raises(SandboxError, match=r"has waited for 0\.2 seconds.*has"):
            in_a_thread(box.bind(wait))


def test_a_statement_that_fails_taints_nothing(db: Database) -> None:
    with sandbox(db) as box:
        store(db, "one")
        with pytest.raises(DBAPIError), db.transaction() as session:
            session.execute(text("INVALID"))
        with pytest.raises(DBAPIError):
            box.session.execute(text("INVALID"))
        store(db, "two")

        assert stored(db) == ["one", "two"]


# Transactions


@pytest.mark.parametrize("level", ["READ COMMITTED", "SERIALIZABLE"])
def test_an_isolation_level_is_accepted(db: Database, level: Any) -> None:
    with sandbox(db), db.transaction(isolation_level=level) as session:
        with session.begin_nested():
            add_item(session)
        assert names(session) == ["one"]


def test_a_unit_that_takes_too_long_is_rolled_back(db: Database) -> None:
    with sandbox(db):
        with (
            pytest.raises((DBAPIError, DeadlineExceededError)),
            db.transaction(timeout=0.1) as session,
        ):
            session.execute(text("SELECT pg_sleep(10)"))

        store(db)
        assert stored(db) == ["one"]


def test_a_transaction_in_a_connection_of_the_engine(db: Database) -> None:
    with sandbox(db), db.engine.connect() as connection:
        assert not connection.in_transaction()
        with connection.begin():
            connection.execute(Item.__table__.insert().values(name="one"))
            assert connection.in_transaction()
        assert not connection.in_transaction()
        connection.close()

        assert stored(db) == ["one"]


def test_a_connection_of_the_engine_in_a_unit(db: Database) -> None:
    with sandbox(db):
        with db.transaction() as session:
            add_item(session)
            with db.engine.connect() as connection:
                assert connection.scalar(text("SELECT count(*) FROM item")) == 1
            assert session.in_transaction()

        assert stored(db) == ["one"]


# Owners


def test_a_sandbox_of_an_exit_stack(db: Database) -> None:
    stack = ExitStack()
    box = stack.enter_context(sandbox(db))
    assert stored(db) == []

    stack.close()

    with pytest.raises(SandboxError, match="its test is over"):
        _ = box.session
