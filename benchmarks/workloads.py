"""What a request does: the same statements for every contestant, sync and async.

Work is a generator that yields what a call of the session returned: an `AsyncSession`
returns something to wait for, a `Session` the result. So each body is written once.
"""

from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from typing import Any, NamedTuple

import sqlalchemy as sa
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

IDLE_IN_TRANSACTION = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND state LIKE 'idle in transaction%'
"""
Steps = Generator[Any, Any, Any]
Work = Callable[[Any], Steps]
Endpoint = Callable[..., Any]
Wrap = Callable[[Work], Endpoint]
"""Makes an endpoint of work, by a contestant's own way to get a session."""


class Base(DeclarativeBase):
    id: Mapped[int] = mapped_column(primary_key=True)


class Item(Base):
    """Read, and never changed."""

    __tablename__ = "item"
    name: Mapped[str]


class Event(Base):
    """Written."""

    __tablename__ = "event"
    name: Mapped[str]


class Note(Base):
    """Breaks at COMMIT, not before, where its item does not exist."""

    __tablename__ = "note"
    item_id: Mapped[int] = mapped_column(
        sa.ForeignKey("item.id", deferrable=True, initially="DEFERRED")
    )


def read(session: Any, number: int = 1) -> Steps:
    item = yield session.scalar(sa.select(Item).where(Item.id == number))
    return {"name": item.name} if item else JSONResponse({"detail": "no item"}, 404)


def write(session: Any) -> Steps:
    session.add(Event(name="written"))
    yield session.flush()
    return {}


def mixed(session: Any) -> Steps:
    yield from read(session)
    yield from write(session)
    return (yield from read(session, 2))


def reads(session: Any) -> Steps:
    for number in range(1, 11):
        answer = yield from read(session, number)
    return answer


def stream(session: Any) -> Steps:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(10):
            yield b"chunk %d\n" % number

    yield from read(session)
    return StreamingResponse(chunks())


async def play(work: Work, session: Any) -> Any:
    """Run *work* with an `AsyncSession`."""
    steps = work(session)
    go_on, value = steps.send, None
    while True:
        try:
            step = go_on(value)
        except StopIteration as done:
            return done.value
        try:
            go_on, value = steps.send, await step
        except Exception as error:
            go_on, value = steps.throw, error


def play_in_thread(work: Work, session: Any) -> Any:
    """Run *work* with a `Session`."""
    steps, value = work(session), None
    try:
        while True:
            value = steps.send(value)
    except StopIteration as done:
        return done.value


class Workload(NamedTuple):
    name: str
    title: str
    work: Work | None = None
    method: str = "GET"
    status: int = 200
    weight: int = 1
    """How many times more requests than others: each is so short."""


AUTOCOMMIT = Workload("autocommit", 'one read, `isolation_level="AUTOCOMMIT"`', read)
"""Only unitwork has it: by `@transactional(...)`."""
WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("nothing", "no database", weight=8),
        Workload("read", "one read", read),
        Workload("write", "one write", write, "POST"),
        Workload("mixed", "read, write, read", mixed, "POST"),
        Workload("reads", "ten reads", reads),
        Workload("missing", "a returned 404", partial(read, number=0), status=404),
        Workload("stream", "a streamed response", stream),
    )
}


def engine_for(url: str) -> sa.Engine:
    """An engine of our own on the database that a contestant reaches by *url*."""
    backend = sa.make_url(url).get_backend_name()
    driver = "sqlite" if backend == "sqlite" else "postgresql+psycopg"
    return sa.create_engine(sa.make_url(url).set(drivername=driver))


def prepare(url: str) -> None:
    """Make the tables, and fill them."""
    engine = engine_for(url)
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:  # the file keeps this
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    rows = [{"id": number, "name": f"item {number}"} for number in range(1, 101)]
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(sa.insert(Item), rows)
    engine.dispose()


def scalar(engine: sa.Engine, statement: str) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(sa.text(statement)) or 0)


def begin_immediate(engines: type[sa.Engine]) -> None:
    """Let SQLite BEGIN IMMEDIATE, as SQLAlchemy's manual has it.

    Without it Python's driver begins no transaction to read, and concurrent ones that
    read and then write fail. unitwork does it by itself; we do it for all others.
    """
    event = sa.event.listen
    event(engines, "connect", lambda it, record: setattr(it, "isolation_level", None))
    event(engines, "begin", lambda it: it.exec_driver_sql("BEGIN IMMEDIATE"))
