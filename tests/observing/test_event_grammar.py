"""The events of a unit come in one order, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.asgi import call
from support.cancelling import at_each_suspension, natively
from support.driver_errors import postgresql, wrapped
from support.event_grammar import EventGrammar
from support.flavours import ASYNC, EVERY, FEW, Flavour, only
from support.models import add_item
from support.pool import until_idle
from support.websocket import Socket
from unitwork import DBSessionMiddleware, current_unit, transactional
from unitwork._engine.admission import gate_of
from unitwork._engine.pool_events import connection_counts
from unitwork._observing.registry import EVENTS
from unitwork.events import (
    CommitAnswered,
    CommitSent,
    ConnectionTaken,
    Event,
    StatementExecuted,
    TransactionBegun,
    UnitBegun,
    UnitEnded,
    UnitSettled,
    WaitStarted,
)
from unitwork.testing import CommitFault, commit_faults, no_waits

pytestmark = pytest.mark.anyio


@pytest.fixture
def grammar(flavour: Flavour) -> Iterator[EventGrammar]:
    grammar = EventGrammar()
    stop = flavour.db.observe(grammar)
    yield grammar
    stop()


def add(session: Session) -> None:
    add_item(session, "one")
    session.flush()


def fail(session: Session) -> None:
    add(session)
    raise HTTPException(409)


def break_off(session: Session) -> None:
    add(session)
    session.execute(text("SELECT * FROM nothing"))


def commit_itself(session: Session) -> None:
    add(session)
    session.commit()


def commit_itself_and_go_on(session: Session) -> None:
    commit_itself(session)
    add_item(session, "two")


def roll_back_itself(session: Session) -> None:
    add(session)
    session.rollback()


def swallow(session: Session) -> None:
    with pytest.raises(Exception, match="nothing"):
        break_off(session)


def use_a_savepoint(session: Session) -> None:
    with session.begin_nested():
        add(session)


def do_nothing(session: Session) -> None:
    current_unit().on_commit(lambda: None)


def close(session: Session) -> None:
    add(session)
    session.close()


WORK = [
    add,
    fail,
    break_off,
    commit_itself,
    commit_itself_and_go_on,
    roll_back_itself,
    swallow,
    use_a_savepoint,
    do_nothing,
    close,
]


def app_of(flavour: Flavour, **endpoints: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    for name, endpoint in endpoints.items():
        app.post(f"/{name}")(endpoint)
    return app


@only(*EVERY, "pymysql", "asyncmy")
@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
async def test_of_a_request(flavour: Flavour, grammar: EventGrammar, work: Any) -> None:
    await call(app_of(flavour, x=flavour.endpoint(work)), "POST", "/x")

    await until_idle(flavour)
    grammar.check()


@FEW
@pytest.mark.parametrize("fault", CommitFault)
async def test_of_a_request_whose_commit_fails(
    flavour: Flavour, grammar: EventGrammar, fault: CommitFault
) -> None:
    with commit_faults(flavour.db, fault):
        await call(app_of(flavour, x=flavour.endpoint(add)), "POST", "/x")

    await until_idle(flavour)
    grammar.check()


@FEW
async def test_of_a_request_that_is_repeated(
    flavour: Flavour, grammar: EventGrammar
) -> None:
    def once_more(session: Session) -> None:
        add(session)
        if current_unit().attempt < 3:
            raise wrapped(postgresql("40001"))

    endpoint = transactional(attempts=3)(flavour.endpoint(once_more))
    with no_waits():
        await call(app_of(flavour, x=endpoint), "POST", "/x")

    grammar.check(units=3)


@only(*ASYNC)
async def test_of_each_message_of_a_websocket(
    flavour: Flavour, grammar: EventGrammar
) -> None:
    app = app_of(flavour)

    @app.websocket("/")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            add = partial(add_item, name=await socket.receive_text())
            await socket.send_text((await flavour.db.current.run_sync(add)).name)

    async with Socket(app, "/") as socket:
        for name in ("one", "two", "three"):
            assert await socket.ask(name) == name

    grammar.check()


@only(*ASYNC)
async def test_of_a_stream_and_its_background_task(
    flavour: Flavour, grammar: EventGrammar
) -> None:
    async def x(tasks: BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "a"
            await flavour.db.current.run_sync(add)
            yield "b"

        tasks.add_task(flavour.work, do_nothing)
        current_unit()
        return StreamingResponse(body(), background=tasks)

    await call(app_of(flavour, x=x), "POST", "/x")

    grammar.check(units=2)


@only(*ASYNC)
async def test_of_blocks_in_tasks(flavour: Flavour, grammar: EventGrammar) -> None:
    async def x() -> None:
        reads = [flavour.work(read, read_only=True) for _ in range(3)]
        await asyncio.gather(*reads)

    await call(app_of(flavour, x=x), "POST", "/x")

    grammar.check(units=3)


def read(session: Session) -> None:
    session.execute(text("SELECT 1"))


# aiosqlite leaves a connection whose opening is cancelled to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
@only(*ASYNC)
async def test_of_a_request_that_is_cancelled_anywhere(
    flavour: Flavour, grammar: EventGrammar
) -> None:
    app = app_of(flavour, x=flavour.endpoint(use_a_savepoint))

    async for _ in at_each_suspension(lambda k: call(app, "POST", "/x"), natively):
        await until_idle(flavour)

    grammar.check(units=3)


@only(*ASYNC)
async def test_of_a_request_beyond_its_deadline(
    flavour: Flavour, grammar: EventGrammar
) -> None:
    @transactional(deadline=0.05)
    async def x() -> None:
        await flavour.db.current.run_sync(add)
        await asyncio.Event().wait()

    await call(app_of(flavour, x=x), "POST", "/x")

    await until_idle(flavour)
    grammar.check()


# Observers that fail


class Fails:
    """Raises *error* at each event of a *kind*."""

    def __init__(self, kind: type[Event], error: type[BaseException]) -> None:
        self._kind = kind
        self._error = error

    def on_event(self, event: Event) -> None:
        if type(event) is self._kind:
            raise self._error


OF_A_BLOCK = (
    UnitBegun,
    WaitStarted,
    ConnectionTaken,
    TransactionBegun,
    StatementExecuted,
    CommitSent,
    CommitAnswered,
    UnitSettled,
    UnitEnded,
)


class Stop(BaseException):
    """As `KeyboardInterrupt`, which would stop the event loop of the test as well."""


@FEW
async def test_of_a_unit_whose_other_observer_always_fails(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    grammar = EventGrammar()
    fails = [Fails(kind, LookupError) for kind in EVENTS]
    other = flavour.another(observers=[*fails, grammar])

    reply = await call(app_of(other, x=other.endpoint(add)), "POST", "/x")

    await other.dispose()
    grammar.check()
    assert reply.status == 200
    assert {record.exc_info[0] for record in caplog.records if record.exc_info} == {
        LookupError
    }


@FEW
@pytest.mark.parametrize("kind", OF_A_BLOCK, ids=lambda kind: kind.__name__)
async def test_an_interrupt_in_an_observer_passes_and_leaves_no_connection(
    flavour: Flavour, kind: type[Event]
) -> None:
    other = flavour.another(pool_size=1, max_overflow=0, pool_timeout=2)
    stop = other.db.observe(Fails(kind, Stop))

    with pytest.raises(Stop):
        await other.work(use_a_savepoint)
    stop()

    await until_idle(other)
    await other.work(read)
    await other.dispose()


@only("sqlite3", "psycopg", "asyncpg")
@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
async def test_no_interrupt_in_an_observer_costs_a_connection(
    flavour: Flavour, kind: type[Event]
) -> None:
    other = flavour.another(pool_size=1, max_overflow=0, pool_timeout=2)
    stop = other.db.observe(Fails(kind, Stop))

    with suppress(Stop):
        await other.work(read)
    with suppress(Stop):
        await other.work(use_everything)
    stop()

    await until_idle(other)
    assert gate_of(other.sync_engine).in_use == 0
    await other.work(read)
    assert connection_counts(other.sync_engine) == (1, 0)
    await other.dispose()


def use_everything(session: Session) -> None:
    """Connections that are closed, and a hook that fails."""
    add(session)
    session.commit()
    unit = current_unit()
    unit.on_commit(lambda: [][0])
    session.execute(text("SELECT 1"))
    session.connection().detach()
