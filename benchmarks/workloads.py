"""What a request does: the same statements for every contestant, sync and async.

Work is a generator that yields what a call of the session returned: an `AsyncSession`
returns something to wait for, a `Session` the result. So each body is written once.
"""

from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, NamedTuple

from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import (
    Engine,
    ForeignKey,
    Select,
    create_engine,
    event,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ROWS = 100
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


class Workload(NamedTuple):
    name: str
    title: str
    work: Work | None = None
    method: str = "GET"
    status: int = 200
    weight: int = 1
    """How many times more requests than others: each is so short."""


def by_id(number: int) -> Select[Any]:
    return select(Item).where(Item.id == number)


def read(session: Any, number: int = 1) -> Steps:
    item = yield session.scalar(by_id(number))
    return {"name": item.name}


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


def missing(session: Any) -> Steps:
    item = yield session.scalar(by_id(0))
    return JSONResponse({"detail": f"{item}"}, 404)


async def chunks() -> AsyncIterator[bytes]:
    for number in range(10):
        yield b"chunk %d\n" % number


def stream(session: Any) -> Steps:
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


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("nothing", "no database", weight=8),
        Workload("read", "one read", read),
        Workload("write", "one write", write, "POST"),
        Workload("mixed", "read, write, read", mixed, "POST"),
        Workload("reads", "ten reads", reads),
        Workload("missing", "a returned 404", missing, status=404),
        Workload("stream", "a streamed response", stream),
    )
}
AUTOCOMMIT = Workload("autocommit", 'one read, `isolation_level="AUTOCOMMIT"`', read)
"""Only unitwork has it: by `@transactional(...)`."""


def engine_for(url: str) -> Engine:
    """An engine of our own on the database that a contestant reaches by *url*."""
    parsed = make_url(url)
    sync = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
    return create_engine(parsed.set(drivername=sync[parsed.get_backend_name()]))


def prepare(url: str) -> None:
    """Make the tables, and fill them."""
    engine = engine_for(url)
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:  # the file keeps this
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    Base.metadata.create_all(engine)
    rows = [{"id": number, "name": f"item {number}"} for number in range(1, ROWS + 1)]
    with engine.begin() as connection:
        connection.execute(insert(Item), rows)
    engine.dispose()


def idle_in_transaction(engine: Engine) -> int:
    """How many connections to this PostgreSQL database are idle in a transaction."""
    with engine.connect() as connection:
        return int(connection.scalar(text(IDLE_IN_TRANSACTION)) or 0)


def begin_immediate(engines: type[Engine]) -> None:
    """Let SQLite BEGIN IMMEDIATE, as SQLAlchemy's manual has it.

    Without it Python's driver begins no transaction to read, and concurrent ones that
    read and then write fail. unitwork does it by itself; we do it for all others.
    """

    @event.listens_for(engines, "connect")
    def disable_driver_begin(connection: Any, record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engines, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
