"""The tables of the workload, and what an outsider sees in them."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import pymysql
from sqlalchemy import String, create_engine, delete, inspect, make_url, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from support.flavours import Observer


class Base(DeclarativeBase):
    pass


class Entry(Base):
    __tablename__ = "fault_entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(40))


class SlowEntry(Base):
    """Its COMMIT takes a while, in PostgreSQL."""

    __tablename__ = "fault_slow_entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(40))


SLOW_COMMIT = """
CREATE OR REPLACE FUNCTION fault_sleep() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER sleep AFTER INSERT ON fault_slow_entry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fault_sleep();
"""
SYNC_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
BUSY = {
    "postgresql": """
        SELECT pid, state, query FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND (state IN ('active', 'fastpath function call') OR state LIKE 'idle in%')
    """,
    "mysql": """
        SELECT id, state, info FROM information_schema.processlist
        WHERE db = DATABASE() AND id <> CONNECTION_ID()
        AND command NOT IN ('Sleep', 'Quit')
    """,
}
PORTS = {
    "postgresql": """
        SELECT client_port FROM pg_stat_activity WHERE client_port > 0
        AND datname = current_database() AND pid <> pg_backend_pid()
    """,
    "mysql": """
        SELECT substring_index(host, ':', -1) FROM information_schema.processlist
        WHERE db = DATABASE() AND id <> CONNECTION_ID()
    """,
}


class Outsider(Observer):
    """Looks at the tables from outside, and kills connections there."""

    def create(self) -> None:
        """Make the tables, with nothing in them."""
        url = self._url.set(drivername=SYNC_DRIVERS[self._backend])
        if self._backend == "mysql":
            url = url.update_query_dict({"ssl_disabled": "true"})
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            if not inspect(connection).has_table(SlowEntry.__tablename__):
                Base.metadata.create_all(connection)
                if self._backend == "postgresql":
                    connection.execute(text(SLOW_COMMIT))
            for table in (Entry, SlowEntry):
                connection.execute(delete(table))
        engine.dispose()

    def keys(self) -> Counter[str]:
        """How often each key is there."""
        found: Counter[str] = Counter()
        for table in (Entry, SlowEntry):
            rows = self._query(
                f"SELECT {table.__tablename__}.key FROM {table.__tablename__}"
            )
            found.update(row[0] for row in rows)
        return found

    def busy(self) -> list[tuple[Any, ...]]:
        """The connections that do something, or hang in a transaction."""
        return [*self._query(BUSY[self._backend]), *self.in_transaction()]

    def ports(self) -> set[int]:
        """From where clients are connected to the server."""
        return {int(row[0]) for row in self._query(PORTS[self._backend])}

    def kill(self, backend: int) -> None:
        """Kill one connection, by the number that the server has given it."""
        if self._backend == "postgresql":
            # Until it has ended: the next user of the connection must not meet that.
            self._query(f"SELECT pg_terminate_backend({backend}, 20000)")
            return
        with suppress(pymysql.OperationalError):  # it has ended meanwhile
            self._query(f"KILL {backend}")


def plain_url(url: str, driver: str) -> str:
    """*url* for *driver*, with nothing that only takes time: no TLS."""
    made = make_url(url).set(drivername=driver)
    if driver == "postgresql+psycopg":
        made = made.update_query_dict({"sslmode": "disable", "gssencmode": "disable"})
    elif driver == "postgresql+asyncpg":
        made = made.update_query_dict({"ssl": "disable"})
    elif driver == "mysql+pymysql":
        made = made.update_query_dict({"ssl_disabled": "true"})
    return made.render_as_string(False)
