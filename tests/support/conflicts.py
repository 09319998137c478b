"""A lost race: another client changes the row between our read and our write."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

from support.flavours import MARIADB, Flavour, connect_mariadb
from support.models import add_item
from support.rivals import set_for_this_connection
from unitwork import TransactionOptions, current_unit

READ = text("SELECT name FROM item WHERE id = 1")
WRITE = text("UPDATE item SET name = :name WHERE id = 1")


def write_from_outside(url: str, sql: str) -> None:
    """Commit one statement on a connection of its own."""
    made = make_url(url)
    if made.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(Path(made.database or ""), timeout=5)) as line:
            line.execute(sql)
            line.commit()
    elif made.get_backend_name() == "mysql":
        with connect_mariadb(made) as mariadb:
            mariadb.query(sql)
    else:
        plain = made.set(drivername="postgresql").render_as_string(False)
        with psycopg.connect(plain, autocommit=True) as pg:
            pg.execute(sql)


class Conflict(Exception):
    """Made up, but known for what it is: a serialization failure."""

    sqlstate = "40001"


class Race:
    """Work on one row that loses its first *lost* races, with errors that are real.

    SQLite: SQLITE_BUSY_SNAPSHOT, if it begins as one that reads, as a GET does;
    PostgreSQL: 40001; MariaDB: 1020.
    """

    def __init__(self, flavour: Flavour, *, lost: int = 1) -> None:
        self.flavour = flavour
        self.lost = lost
        self.attempts: list[int] = []
        """What `unit.attempt` was, each time that it has begun."""
        self.on_begin: Callable[[Session], Any] = lambda session: None
        """What else is to be done by each attempt, before the race."""

    async def prepare(self) -> None:
        await self.flavour.work(lambda session: add_item(session, "0") and None)

    def options(self, attempts: int | None = 3, **others: Any) -> TransactionOptions:
        return TransactionOptions(attempts=attempts, **others, **self.level)

    @property
    def level(self) -> dict[str, Any]:
        """What the transaction has to ask for if others are to get in its way."""
        if self.flavour.is_sqlite:
            return {}
        return {"isolation_level": "REPEATABLE READ"}

    def run(self, session: Session) -> int:
        """Add 1 to the row, and give what it was."""
        self.attempts.append(current_unit().attempt)
        self.on_begin(session)
        if self.flavour.name in MARIADB:
            set_for_this_connection(session, "innodb_snapshot_isolation = ON")
        seen = int(session.execute(READ).scalar_one())
        if len(self.attempts) <= self.lost:
            theirs = f"UPDATE item SET name = '{seen + 10}' WHERE id = 1"
            write_from_outside(self.flavour.url, theirs)
        session.execute(WRITE, {"name": str(seen + 1)})
        return seen
