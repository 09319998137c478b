"""What errors mean: real ones of SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from sqlalchemy import make_url
from sqlalchemy.orm import Session

from support.asgi import call
from support.endpoints import serve_fastapi
from support.flavours import Flavour, only
from support.meaning import Body, meaning
from support.models import add_item, names
from unitwork import (
    Classification,
    DatabaseSettings,
    Kind,
    Phase,
    TransactionOptions,
    classify,
)


@contextmanager
def another_writer(flavour: Flavour) -> Iterator[sqlite3.Connection]:
    path = make_url(flavour.url).database or ""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        yield other


async def meaning_in_get(flavour: Flavour, body: Body) -> Classification:
    """That of an error in a request which takes the write lock at its first write."""
    at_once = TransactionOptions(lock_timeout=0.001)
    app = serve_fastapi(flavour, body, options=at_once)
    reply = await call(app, "GET", "/")
    assert reply.error is not None
    return classify(reply.error)


@only("sqlite3", "aiosqlite")
async def test_a_database_that_somebody_writes(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        with another_writer(flavour) as other:
            other.execute("BEGIN IMMEDIATE")
            add_item(session)

    found = await meaning_in_get(flavour, body)

    assert (found.kind, found.code) == (Kind.RETRY_WITH_CARE, sqlite3.SQLITE_BUSY)
    assert (found.family, found.poisons, found.retryable) == ("sqlite", False, False)


@only("sqlite3", "aiosqlite")
async def test_a_snapshot_that_is_outdated(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        names(session)
        with another_writer(flavour) as other:
            other.execute("INSERT INTO item (name) VALUES ('theirs')")
        add_item(session)

    found = await meaning_in_get(flavour, body)

    assert (found.kind, found.code) == (Kind.RETRY, sqlite3.SQLITE_BUSY_SNAPSHOT)


@only("sqlite3", "aiosqlite")
async def test_a_reader_that_keeps_commit_waiting(flavour: Flavour) -> None:
    settings = DatabaseSettings(sqlite_defaults=False)  # no write-ahead log
    plain = flavour.another(settings=settings, connect_args={"timeout": 0})

    def body(session: Session) -> None:
        add_item(session)
        with another_writer(flavour) as reader:
            rows = reader.execute("SELECT 1 FROM sqlite_schema")
            assert rows.fetchone()
            session.commit()

    found = await meaning(plain, body, Phase.COMMIT)

    assert (found.kind, found.unknown) == (Kind.RETRY_WITH_CARE, False)
    assert (found.code, found.poisons) == (sqlite3.SQLITE_BUSY, False)
    await plain.dispose()
