"""A PostgreSQL whose COMMITs wait or whose answers are lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from fastapi import BackgroundTasks, FastAPI
from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.flavours import Flavour, Observer
from support.models import add_item, names
from support.pool import eventually
from support.proxy import Proxy
from unitwork import (
    DatabaseSettings,
    DBSessionMiddleware,
    Outcome,
    UnitOfWork,
    current_unit,
)
from unitwork.testing import check_idle

LOCK = 5_005
WAIT_FOR_LOCK = """
CREATE FUNCTION wait_for_lock() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock_shared(tg_argv[0]::bigint); RETURN NULL; END'
"""
"""Each database of the tests has it: a temporary function would outlive its unit."""
WAIT_AT_COMMIT = f"""
DO $$ BEGIN
    CREATE TEMP TABLE held (a int) ON COMMIT DROP;
    CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON held DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait_for_lock({LOCK});
    INSERT INTO held VALUES (1);
END $$
"""


class Server:
    """PostgreSQL behind a proxy, and an application that uses it."""

    def __init__(self, flavour: Flavour, proxy: Proxy) -> None:
        self.flavour = flavour
        self.proxy = proxy
        self.observer = Observer(flavour.url)
        self.calls: list[str] = []
        self.units: list[UnitOfWork] = []
        self.app = FastAPI()
        self.slow = False

    def serve(self, **settings: Any) -> Flavour:
        """Connect the application, through the proxy; gives what to dispose of."""
        settings = {"verify_commit": True, "end_timeout": 1.0, **settings}
        served = replace(self.flavour, url=self.proxy.url).another(
            settings=DatabaseSettings(**settings)
        )
        self.app.add_middleware(DBSessionMiddleware, db=served.db, answer_errors=False)

        def write(session: Session) -> None:
            add_item(session)
            if self.slow:
                session.execute(text(WAIT_AT_COMMIT))

        def endpoint(background: BackgroundTasks) -> None:
            unit = current_unit()
            self.units.append(unit)
            for kind in ("on_commit", "on_rollback", "on_unknown"):
                getattr(unit, kind)(self.calls.append, kind)
            background.add_task(self.calls.append, "background")

        work = served.endpoint(write)

        if served.is_async:

            async def post(background: BackgroundTasks) -> None:
                endpoint(background)
                await work(served.db.current)

            self.app.post("/")(post)
        else:

            def post_in_thread(background: BackgroundTasks) -> None:
                endpoint(background)
                work(served.db.current)

            self.app.post("/")(post_in_thread)
        self.app.get("/")(served.endpoint(names))
        return served

    async def post(self) -> Reply:
        async with asyncio.timeout(20):
            return await call(self.app, "POST", "/")

    async def committing(self) -> int:
        """Wait until the server is in the middle of COMMIT; gives the backend's pid."""
        found: list[tuple[Any, ...]] = []

        def look() -> bool:
            found[:] = self.observer._query(
                "SELECT pid FROM pg_stat_activity WHERE query LIKE '%COMMIT%' AND "
                "wait_event_type = 'Lock' AND datname = current_database()"
            )
            return bool(found)

        await eventually(look)
        return int(found[0][0])

    @property
    def outcome(self) -> Outcome | None:
        return self.units[-1].outcome


@asynccontextmanager
async def served(server: Server, **settings: Any) -> AsyncIterator[None]:
    there = server.serve(**settings)
    yield
    check_idle(there.db)
    await eventually(lambda: server.observer.in_transaction() == [])
    await there.dispose()


@contextmanager
def held(server: Server) -> Iterator[psycopg.Connection[Any]]:
    """Let COMMIT wait in the server, until the block ends."""
    plain = make_url(server.flavour.url).set(drivername="postgresql")
    server.slow = True
    with psycopg.connect(plain.render_as_string(False), autocommit=True) as other:
        other.execute(f"SELECT pg_advisory_lock({LOCK})")
        yield other


def look(session: Session, name: str) -> None:
    names(session)
