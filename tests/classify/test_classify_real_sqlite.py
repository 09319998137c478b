"""What errors mean: real ones of SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

from support.flavours import Flavour, only
from support.meaning import meaning
from support.models import add_item, names
from support.pool import DEFERRED
from unitwork import DatabaseSettings, Kind, Phase


@contextmanager
def another_writer(flavour: Flavour) -> Iterator[sqlite3.Connection]:
    path = make_url(flavour.url).database or ""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        yield other


def begin(session: Session) -> None:
    """Begin without a lock, and wait for nobody."""
    session.connection(execution_options=DEFERRED)
    session.execute(text("PRAGMA busy_timeout = 0"))


@only("sqlite3", "aiosqlite")
async def test_a_database_that_somebody_writes(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        begin(session)
        with another_writer(flavour) as other:
            other.execute("BEGIN IMMEDIATE")
            add_item(session)

    found = await meaning(flavour, body)

    assert (found.kind, found.code) == (Kind.RETRY_WITH_CARE, sqlite3.SQLITE_BUSY)
    assert (found.family, found.poisons, found.retryable) == ("sqlite", False, False)


@only("sqlite3", "aiosqlite")
async def test_a_snapshot_that_is_outdated(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        begin(session)
        names(session)
        with another_writer(flavour) as other:
            other.execute("INSERT INTO item (name) VALUES ('theirs')")
        add_item(session)

    found = await meaning(flavour, body)

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
