"""The tables that all contestants read and write, and how a database gets them."""

from typing import Any

from sqlalchemy import (
    Engine,
    ForeignKey,
    create_engine,
    event,
    insert,
    make_url,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ROWS = 100
PREPARED_BY = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
IDLE_IN_TRANSACTION = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND state LIKE 'idle in transaction%'
"""


class Base(DeclarativeBase):
    pass


class Item(Base):
    """Read, and never changed."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Event(Base):
    """Written."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Note(Base):
    """Breaks at COMMIT, not before, where its item does not exist."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(
        ForeignKey("item.id", deferrable=True, initially="DEFERRED")
    )


def from_outside(url: str) -> Engine:
    """An engine of our own on the database that a contestant reaches by *url*."""
    parsed = make_url(url)
    return create_engine(parsed.set(drivername=PREPARED_BY[parsed.get_backend_name()]))


def prepare(url: str) -> None:
    """Make the tables anew, and fill them."""
    engine = from_outside(url)
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:  # as it stays in the file
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    rows = [{"id": number, "name": f"item {number}"} for number in range(1, ROWS + 1)]
    with engine.begin() as connection:
        connection.execute(insert(Item), rows)
    engine.dispose()


def idle_in_transaction(engine: Engine) -> int:
    """How many connections to this PostgreSQL database hang in a transaction."""
    with engine.connect() as connection:
        return int(connection.scalar(text(IDLE_IN_TRANSACTION)) or 0)


def begin_at_once(engines: type[Engine]) -> None:
    """Let SQLite BEGIN IMMEDIATE, as SQLAlchemy's manual has it.

    Without it Python's driver begins no transaction to read, and concurrent ones that
    read and then write fail. unitwork does it by itself; we do it for all others.
    """

    @event.listens_for(engines, "connect")
    def leave_begin_to_us(connection: Any, record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engines, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
