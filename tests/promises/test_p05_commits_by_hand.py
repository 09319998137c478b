"""P5: a COMMIT that the application sends itself is settled like that of a unit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

from support.asgi import call
from support.commit_server import LOCK, WAIT_AT_COMMIT
from support.endpoints import serve_fastapi
from support.flavours import POSTGRESQL, Flavour, Observer, everywhere, only
from support.models import add_item
from support.pool import eventually
from unitwork import (
    CommitUnknownError,
    DBSessionMiddleware,
    Outcome,
    UnitOfWork,
    current_unit,
)
from unitwork.testing import CommitFault, commit_faults

pytestmark = pytest.mark.anyio

BOTH_WAYS = pytest.mark.parametrize("fault", list(CommitFault))


def by_session(session: Session) -> None:
    add_item(session)
    session.commit()


def by_block(session: Session) -> None:
    with session.begin():
        add_item(session)


def by_transaction(session: Session) -> None:
    add_item(session)
    transaction = session.get_transaction()
    assert transaction is not None
    transaction.commit()


WAYS = pytest.mark.parametrize("commit", [by_session, by_block, by_transaction])


class Watched:
    """An endpoint's body with a hook of each kind."""

    def __init__(self, body: Callable[[Session], object]) -> None:
        self.body = body
        self.calls: list[str] = []
        self.units: list[UnitOfWork] = []

    def __call__(self, session: Session) -> None:
        unit = current_unit()
        self.units.append(unit)
        for kind in ("on_commit", "on_rollback", "on_unknown"):
            getattr(unit, kind)(self.calls.append, kind)
        self.body(session)

    @property
    def seen(self) -> tuple[Outcome | None, list[str]]:
        return self.units[0].outcome, self.calls


@only(*POSTGRESQL)
@WAYS
async def test_one_that_was_stored_is_a_success(
    flavour: Flavour, observer: Observer, commit: Callable[[Session], object]
) -> None:
    body = Watched(commit)

    with commit_faults(flavour.db, CommitFault.COMMITTED):
        reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert reply.status == 200
    assert body.seen == (Outcome.COMMITTED, ["on_commit"])
    assert observer.names() == ["one"]


@only(*POSTGRESQL)
@WAYS
async def test_one_that_was_not_is_a_failure(
    flavour: Flavour, observer: Observer, commit: Callable[[Session], object]
) -> None:
    body = Watched(commit)

    with commit_faults(flavour.db, CommitFault.ROLLED_BACK):
        reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert reply.status == 500
    assert body.seen == (Outcome.ROLLED_BACK, ["on_rollback"])
    assert observer.names() == []


@everywhere
@WAYS
@BOTH_WAYS
async def test_one_of_which_nothing_is_known_is_unknown(
    unsure: Flavour, commit: Callable[[Session], object], fault: CommitFault
) -> None:
    body = Watched(commit)
    app = serve_fastapi(unsure, body, answer_errors=False)

    with commit_faults(unsure.db, fault):
        reply = await call(app, "POST", "/")

    assert isinstance(reply.error, CommitUnknownError)
    assert body.seen == (Outcome.UNKNOWN, ["on_unknown"])


@everywhere
@BOTH_WAYS
async def test_one_of_which_nothing_is_known_can_not_be_swallowed(
    unsure: Flavour, fault: CommitFault
) -> None:
    def swallow(session: Session) -> None:
        with pytest.raises(CommitUnknownError):
            by_session(session)
        session.rollback()

    body = Watched(swallow)
    app = serve_fastapi(unsure, body, answer_errors=False)
    with commit_faults(unsure.db, fault):
        reply = await call(app, "POST", "/")

    assert isinstance(reply.error, CommitUnknownError)
    assert body.seen == (Outcome.UNKNOWN, ["on_unknown"])


def commit_slowly(session: Session) -> None:
    session.execute(text(WAIT_AT_COMMIT))
    by_session(session)


@only("asyncpg", "psycopg-async")
async def test_a_cancellation_does_not_tear_it_in_two(
    flavour: Flavour, observer: Observer
) -> None:
    body = Watched(commit_slowly)
    plain = make_url(flavour.url).set(drivername="postgresql")

    with psycopg.connect(plain.render_as_string(False), autocommit=True) as other:
        other.execute(f"SELECT pg_advisory_lock({LOCK})")
        request = asyncio.create_task(call(serve_fastapi(flavour, body), "POST", "/"))
        await eventually(lambda: other.execute(WAITING).fetchone() == (1,))
        request.cancel()
        await checkpoint()
    await asyncio.wait((request,))

    assert request.cancelled()
    assert body.seen == (Outcome.COMMITTED, ["on_commit"])
    assert observer.names() == ["one"]


@only("asyncpg", "psycopg-async")
async def test_a_time_limit_of_the_application_ends_where_it_was_set(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    plain = make_url(flavour.url).set(drivername="postgresql")
    limit = asyncio.timeout(None)

    @app.post("/")
    async def endpoint() -> str:
        session: Any = flavour.db.current
        await session.run_sync(add_item)
        await session.execute(text(WAIT_AT_COMMIT))
        with pytest.raises(TimeoutError):
            async with limit:
                await session.commit()
        await asyncio.sleep(0)
        return "late"

    with psycopg.connect(plain.render_as_string(False), autocommit=True) as other:
        other.execute(f"SELECT pg_advisory_lock({LOCK})")
        request = asyncio.create_task(call(app, "POST", "/"))
        await eventually(lambda: other.execute(WAITING).fetchone() == (1,))
        limit.reschedule(0)
        await eventually(limit.expired)
    reply = await request

    assert (reply.status, observer.names()) == (200, ["one"])


WAITING = """
SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()
"""
