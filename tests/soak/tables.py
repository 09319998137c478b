"""The tables of the programs, and what an outsider does beside them.

Keys are not unique: what was stored twice is to be found out, not to be refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import psycopg
from sqlalchemy import (
    Connection,
    ForeignKey,
    NullPool,
    String,
    create_engine,
    delete,
    insert,
    make_url,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import faults.tables
from faults.tables import SYNC_DRIVERS, plain_url


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "soak_row"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(40))


class Taken(Base):
    """Has a row 1, always."""

    __tablename__ = "soak_taken"
    id: Mapped[int] = mapped_column(primary_key=True)


class Orphan(Base):
    """Refused by COMMIT, and not before."""

    __tablename__ = "soak_orphan"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(
        ForeignKey(Taken.id, deferrable=True, initially="DEFERRED")
    )


CONFLICT = text("DO $$ BEGIN RAISE 'conflict' USING ERRCODE = '40001'; END $$")
KEY = "soak_row.key"
CURSOR = text("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3")


class Outsider(faults.tables.Outsider):
    """Looks at the tables from outside, by a connection that it keeps."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._lock = Lock()
        self._connection: psycopg.Connection[Any] | None = None

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        if self._backend != "postgresql":
            return super()._query(sql)
        with self._lock:
            try:
                return self._ask(sql)
            except psycopg.OperationalError:  # the server has been restarted
                self.disconnect()
                return self._ask(sql)

    def _ask(self, sql: str) -> list[tuple[Any, ...]]:
        if self._connection is None:
            plain = self._url.set(drivername="postgresql").render_as_string(False)
            self._connection = psycopg.connect(plain, autocommit=True)
        cursor = self._connection.execute(sql)
        return cursor.fetchall() if cursor.description else []

    def create(self) -> None:
        with self._begin() as connection:
            Base.metadata.drop_all(connection)
            Base.metadata.create_all(connection)
            connection.execute(insert(Taken).values(id=1))

    def table(self) -> Counter[str]:
        """How often each key is there."""
        return Counter(row[0] for row in self._query(f"SELECT {KEY} FROM soak_row"))

    def empty(self) -> None:
        if self._backend == "postgresql":
            self._query("TRUNCATE soak_row")
            return
        with self._begin() as connection:
            connection.execute(delete(Row))

    def busy(self) -> list[tuple[Any, ...]]:
        return [] if self._backend == "sqlite" else super().busy()

    def disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        driver = SYNC_DRIVERS.get(self._backend, self._backend)
        url = make_url(plain_url(self._url.render_as_string(False), driver))
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            yield connection
