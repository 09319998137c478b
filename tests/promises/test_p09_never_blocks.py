"""P9: the event loop is never blocked, and pool and threads never starve each other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from anyio import to_thread
from fastapi import Depends, FastAPI, Request
from sqlalchemy import make_url
from sqlalchemy.orm import Session

from support.asgi import call
from support.crowds import Crowded, to_event
from support.flavours import POSTGRESQL, SYNC, Flavour, Observer, everywhere, only
from support.holding import LOCK, Hold, holding, running
from support.models import Child, add_item, names
from support.pool import eventually
from unitwork import (
    BlockingSessionWarning,
    DBSessionMiddleware,
    PoolTimeoutError,
    current_unit,
)

pytestmark = pytest.mark.anyio


# Slow endings


@pytest.fixture
async def slow_commit(flavour: Flavour) -> AsyncIterator[Hold]:
    """A COMMIT that checks a `Child` does not end before it is let go."""
    execute(flavour, SLOW)
    with holding(flavour) as hold:
        yield hold
    execute(flavour, "DROP FUNCTION slow CASCADE")


SLOW = f"""
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock({LOCK}); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON child
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()
"""


def execute(flavour: Flavour, sql: str) -> None:
    plain = make_url(flavour.url).set(drivername="postgresql")
    with psycopg.connect(plain.render_as_string(False), autocommit=True) as connection:
        connection.execute(sql.encode())


def add_child(session: Session) -> None:
    session.add(Child(parent_id=add_item(session).id))
    session.flush()


@only(*POSTGRESQL)
async def test_others_are_served_while_a_commit_is_under_way(
    app: FastAPI, flavour: Flavour, slow_commit: Hold, observer: Observer
) -> None:
    app.post("/slow")(flavour.endpoint(add_child))
    app.get("/other")(flavour.endpoint(names))
    async with running(call(app, "POST", "/slow")) as slow:
        await slow_commit.reached()
        under_way = slow_commit.statements()
        other = await call(app, "GET", "/other")
        assert not slow.done()
        slow_commit.release()
        reply = await slow

    assert under_way == ["COMMIT"]
    assert (other.status, other.json) == (200, [])
    assert (reply.status, observer.names()) == (200, ["one"])


@everywhere
@pytest.mark.parametrize("moment", ["before_commit", "on_commit", "on_rollback"])
async def test_others_are_served_while_a_sync_hook_is_under_way(
    app: FastAPI, flavour: Flavour, moment: str
) -> None:
    started, finish = threading.Event(), threading.Event()

    def hook() -> None:
        started.set()
        assert finish.wait(10)

    def endpoint(session: Session) -> None:
        unit = current_unit()
        getattr(unit, moment)(hook)
        {"on_rollback": unit.rollback_only}.get(moment, str)()

    app.post("/hook")(flavour.endpoint(endpoint))
    app.get("/other")(flavour.endpoint(names))
    async with running(call(app, "POST", "/hook")) as request:
        await to_event(started)
        other = await call(app, "GET", "/other")
        assert not request.done()
        finish.set()
        await request

    assert other.status == 200


# A sync session in an `async def`


@only(*SYNC)
async def test_a_sync_session_in_an_async_endpoint_works_and_warns_once(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    injected = Depends(flavour.db.session)

    @app.post("/{name}")
    async def endpoint(name: str, session: Session = injected) -> None:
        add_item(session, name)

    with pytest.warns(BlockingSessionWarning, match="plain `def`") as caught:
        await call(app, "POST", "/one")
    await call(app, "POST", "/two")

    assert len(caught) == 1
    assert Path(caught[0].filename).name == "models.py"  # where it was used
    assert observer.names() == ["one", "two"]


@only(*SYNC, "pymysql")
async def test_a_sync_session_on_the_event_loop_does_not_wait_for_a_connection(
    crowded: Crowded,
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=crowded.flavour.db, answer_errors=False)

    @app.get("/")
    async def endpoint(request: Request) -> None:
        names(request.state.db)

    with pytest.warns(BlockingSessionWarning):
        reply = await call(app, "GET", "/")

    assert isinstance(reply.error, PoolTimeoutError)
    assert "would block the event loop" in str(reply.error)


@only("asyncpg", "psycopg")
async def test_hooks_wait_for_no_thread_of_the_framework(flavour: Flavour) -> None:
    """They all may wait for a lock that the unit of the hook holds."""
    free, limiter = threading.Event(), to_thread.current_default_thread_limiter()
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.get("/")
    async def endpoint() -> None:
        current_unit().before_commit(free.set)

    busy = [
        asyncio.create_task(to_thread.run_sync(free.wait, 10))
        for _ in range(int(limiter.total_tokens))
    ]
    await eventually(lambda: limiter.available_tokens == 0)
    reply = await call(app, "GET", "/")

    assert reply.status == 200
    assert await asyncio.gather(*busy) == [True] * len(busy)
