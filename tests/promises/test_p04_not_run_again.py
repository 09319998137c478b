"""P4: a request that may be stored is not run again, whatever has committed it."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.asgi import call
from support.conflicts import Conflict
from support.driver import send, send_and_swallow
from support.flavours import MARIADB, SERVERS, Flavour, Observer, everywhere, only
from support.models import add_item
from unitwork import DBSessionMiddleware, current_unit, transactional

pytestmark = pytest.mark.anyio


class Counted:
    """An endpoint with attempts. Each commits past the session, and then fails."""

    def __init__(self, flavour: Flavour) -> None:
        self.attempts = 0
        self.commits = [lambda session: send(session, "COMMIT")]
        self.app = FastAPI()
        self.app.add_middleware(DBSessionMiddleware, db=flavour.db)
        endpoint = flavour.endpoint(self.body)
        self.app.post("/")(transactional(attempts=3)(endpoint))

    def body(self, session: Session) -> None:
        self.attempts += 1
        add_item(session, f"attempt {self.attempts}")
        for commit in self.commits:
            commit(session)
        raise Conflict


@pytest.fixture
def counted(flavour: Flavour) -> Counted:
    return Counted(flavour)


@everywhere
async def test_after_a_commit_through_the_driver(
    counted: Counted, observer: Observer
) -> None:
    reply = await call(counted.app, "POST", "/")

    assert isinstance(reply.error, Conflict)
    assert (reply.status, counted.attempts) == (500, 1)
    assert observer.names() == ["attempt 1"]


@only("aiosqlite", *SERVERS)
async def test_after_one_that_another_transaction_follows(
    counted: Counted, observer: Observer
) -> None:
    counted.commits.append(lambda session: send(session, "BEGIN"))

    await call(counted.app, "POST", "/")

    assert (counted.attempts, observer.names()) == (1, ["attempt 1"])


@only(*MARIADB)
async def test_after_ddl_that_has_failed(counted: Counted, observer: Observer) -> None:
    counted.commits = [lambda s: send_and_swallow(s, "DROP TABLE nowhere")]

    await call(counted.app, "POST", "/")

    assert (counted.attempts, observer.names()) == (1, ["attempt 1"])


@everywhere
async def test_the_answer_of_a_handler_stands(
    counted: Counted, observer: Observer
) -> None:
    counted.app.add_exception_handler(
        Conflict, lambda request, error: JSONResponse("conflict", 409)
    )

    reply = await call(counted.app, "POST", "/")

    assert (reply.status, reply.error) == (409, None)
    assert (counted.attempts, observer.names()) == (1, ["attempt 1"])


@everywhere
async def test_unless_it_should_be_committed(counted: Counted) -> None:
    counted.commits.append(lambda session: current_unit().commit_anyway())
    counted.app.add_exception_handler(
        Conflict, lambda request, error: JSONResponse("conflict", 409)
    )

    reply = await call(counted.app, "POST", "/")

    assert b"commit-unknown" in reply.body
    assert (reply.status, counted.attempts) == (500, 1)


@everywhere
async def test_a_request_that_is_rolled_back_is(
    counted: Counted, observer: Observer
) -> None:
    counted.commits = [lambda session: session.execute(text("SELECT 1"))]

    await call(counted.app, "POST", "/")

    assert (counted.attempts, observer.names()) == (3, [])
