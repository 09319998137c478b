"""What a request does: the same statements for every contestant, sync and async.

Work is a generator that yields what a call of the session returned: an `AsyncSession`
returns something to wait for, a `Session` the result. So each body is written once.
"""

from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from typing import Any, LiteralString, NamedTuple

import psycopg
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
    __tablename__ = "item"
    name: Mapped[str]


class Event(Base):
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


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("nothing", "no database, us over no middleware"),
        Workload("read", "one read", read),
        Workload("write", "one write", write, "POST"),
        Workload("mixed", "read, write, read", mixed, "POST"),
        Workload("reads", "ten reads", reads),
        Workload("missing", "a returned 404", partial(read, number=0), status=404),
        Workload("stream", "a streamed response", stream),
    )
}


def prepare(url: str) -> None:
    """Make the tables, and fill them."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    rows = [{"id": number, "name": f"item {number}"} for number in range(1, 101)]
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(sa.insert(Item), rows)
    engine.dispose()


def scalar(url: str, statement: LiteralString) -> int:
    """What PostgreSQL answers, by a connection of its own."""
    address = sa.make_url(url).set(drivername="postgresql")
    with psycopg.connect(address.render_as_string(hide_password=False)) as connection:
        (found,) = connection.execute(statement).fetchone() or (0,)
    return int(found)
