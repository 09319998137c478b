"""SQLite: pragmas, who takes the write lock and when, databases in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session
from starlette.requests import Request

from support.asgi import call
from support.flavours import Flavour, Observer, only
from support.models import Child, Item, add_item, names
from support.pages import statements
from unitwork import (
    AsyncDatabase,
    Database,
    DatabaseSettings,
    DBSessionMiddleware,
    UsageError,
    current_unit,
)

pytestmark = [pytest.mark.anyio, only("sqlite3", "aiosqlite")]

MEMORY = {"sqlite3": "sqlite://", "aiosqlite": "sqlite+aiosqlite://"}
METHODS = ["GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE"]


def serve(flavour: Flavour, body: Callable[[Session], Any]) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.api_route("/", methods=METHODS)(flavour.endpoint(body))
    return app


def pragmas(session: Session) -> dict[str, object]:
    asked = "foreign_keys", "busy_timeout", "journal_mode"
    return {name: session.scalar(text(f"PRAGMA {name}")) for name in asked}


# Pragmas


async def test_a_file_is_given_good_pragmas(flavour: Flavour) -> None:
    assert await flavour.work(pragmas) == {
        "foreign_keys": 1,
        "busy_timeout": 5000,
        "journal_mode": "wal",
    }


async def test_foreign_keys_are_enforced(flavour: Flavour, observer: Observer) -> None:
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        await flavour.work(lambda session: session.add(Child(parent_id=1)))

    assert observer.children() == 0


async def test_without_the_defaults_all_is_left_alone(flavour: Flavour) -> None:
    plain = flavour.another(settings=DatabaseSettings(sqlite_defaults=False))

    with statements(plain.db.engine) as sent:
        found = await plain.work(pragmas)
    await plain.dispose()

    assert (found["foreign_keys"], found["journal_mode"]) == (0, "delete")
    assert not [sql for sql in sent if sql.startswith("BEGIN")]


async def test_an_engine_of_the_users_own_is_left_alone(flavour: Flavour) -> None:
    plain = flavour.another(settings=DatabaseSettings(sqlite_defaults=False))
    given = Flavour(flavour.name, flavour.url, type(flavour.db)(plain.db.engine))

    found = await given.work(pragmas)
    await plain.dispose()

    assert (found["foreign_keys"], found["journal_mode"]) == (0, "delete")


async def test_a_connection_that_can_not_be_set_up_is_not_left_open(
    flavour: Flavour, tmp_path: Path
) -> None:
    (tmp_path / "no.db").write_text("this is no database at all" * 100)
    broken = type(flavour.db)(flavour.url.replace("test.db", "no.db"))

    with pytest.raises(Exception, match="not a database"):
        await Flavour(flavour.name, flavour.url, broken).work(names)

    assert broken.pool_status().checked_out == 0


async def busy_timeout(flavour: Flavour, url: str, **options: Any) -> object:
    database = type(flavour.db)(url, **options)
    patient = Flavour(flavour.name, url, database)
    found = await patient.work(pragmas)
    await patient.dispose()
    return found["busy_timeout"]


async def test_the_users_own_timeout_counts(flavour: Flavour) -> None:
    in_arguments = {"connect_args": {"timeout": 30}}

    assert await busy_timeout(flavour, flavour.url, **in_arguments) == 30_000
    assert await busy_timeout(flavour, f"{flavour.url}?timeout=20") == 20_000


def read_only(flavour: Flavour, tmp_path: Path, query: str) -> Flavour:
    """The file of *flavour*, with *query* in its URI."""
    scheme = MEMORY[flavour.name].partition(":")[0]
    url = f"{scheme}:///file:{tmp_path}/test.db?{query}&uri=true"
    return Flavour(flavour.name, url, type(flavour.db)(url))


@pytest.mark.parametrize("query", ["mode=ro", "immutable=1"])
async def test_a_file_that_is_read_only_can_be_read(
    flavour: Flavour, tmp_path: Path, query: str
) -> None:
    plain = flavour.another(settings=DatabaseSettings(sqlite_defaults=False))
    await plain.work(add_item)
    await plain.dispose()
    readable = read_only(flavour, tmp_path, query)

    assert await readable.work(names) == ["one"]
    for method in ("GET", "POST"):
        reply = await serve_inside(readable, method, names, names)
        assert (reply.status, reply.error) == (200, None)
    with pytest.raises(OperationalError, match="readonly"):
        await readable.work(add_item)

    await readable.dispose()


async def test_a_file_that_is_read_only_may_have_a_write_ahead_log(
    flavour: Flavour, tmp_path: Path
) -> None:
    await flavour.work(add_item)
    readable = read_only(flavour, tmp_path, "mode=ro")

    assert await readable.work(names) == ["one"]

    await readable.dispose()


# Which BEGIN


async def test_the_file_hears_begin_and_commit_once_each(flavour: Flavour) -> None:
    heard: list[str] = []

    def listen(dbapi_connection: Any, record: object) -> None:
        run = getattr(dbapi_connection, "run_async", lambda do: do(dbapi_connection))
        run(lambda connection: connection.set_trace_callback(heard.append))

    event.listen(flavour.sync_engine, "connect", listen)
    await flavour.work(add_item)

    heard = [sql.split()[0] for sql in heard if not sql.startswith("PRAGMA")]
    assert heard == ["BEGIN", "INSERT", "COMMIT"]


@pytest.mark.parametrize("method", METHODS)
async def test_requests_that_may_write_take_the_lock_at_once(
    flavour: Flavour, method: str
) -> None:
    app = serve(flavour, lambda session: names(session))

    with statements(flavour.db.engine) as sent:
        reply = await call(app, method, "/")

    assert reply.status == 200
    reads = method in ("GET", "HEAD", "OPTIONS", "TRACE")
    assert sent[0] == ("BEGIN" if reads else "BEGIN IMMEDIATE")
    assert sent[-1] == "COMMIT"


async def test_a_block_takes_the_lock_at_once(flavour: Flavour) -> None:
    with statements(flavour.db.engine) as sent:
        await flavour.work(names)

    assert (sent[0], sent[-1]) == ("BEGIN IMMEDIATE", "COMMIT")


async def test_a_get_that_writes_works(flavour: Flavour, observer: Observer) -> None:
    app = serve(flavour, lambda session: add_item(session).id)

    reply = await call(app, "GET", "/")

    assert (reply.status, observer.names()) == (200, ["one"])


async def test_eight_that_read_and_then_write_all_succeed(
    flavour: Flavour, observer: Observer
) -> None:
    def count(session: Session) -> None:
        add_item(session, f"item {len(names(session))}")

    app = serve(flavour, count)
    replies = await asyncio.gather(*(call(app, "POST", "/") for _ in range(8)))

    assert [(reply.status, reply.error) for reply in replies] == [(200, None)] * 8
    assert observer.names() == [f"item {n}" for n in range(8)]


async def test_eight_blocks_that_read_and_then_write_all_succeed(
    flavour: Flavour, observer: Observer
) -> None:
    def count(session: Session) -> None:
        add_item(session, f"item {len(names(session))}")

    await asyncio.gather(*(flavour.work(count) for _ in range(8)))

    assert observer.names() == [f"item {n}" for n in range(8)]


async def test_readers_do_not_wait_for_a_writer(flavour: Flavour) -> None:
    app = serve(flavour, names)
    written, read = asyncio.Event(), asyncio.Event()
    writing = FastAPI()
    writing.add_middleware(DBSessionMiddleware, db=flavour.db)

    @writing.post("/")
    async def write() -> None:
        await flavour.do(flavour.db.current, lambda session: add_item(session).id)
        written.set()
        await read.wait()

    writer = asyncio.create_task(call(writing, "POST", "/"))
    await written.wait()
    reply = await call(app, "GET", "/")
    read.set()

    assert (reply.json, (await writer).status) == ([], 200)


# Transactions that deserve the name


async def test_a_released_savepoint_is_lost_with_its_transaction(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        with session.begin_nested():
            add_item(session)
        raise LookupError

    with pytest.raises(LookupError):
        await flavour.work(body)

    assert observer.names() == []


async def test_a_savepoint_that_is_rolled_back_leaves_the_rest(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session, "before")
        with suppress(LookupError), session.begin_nested():
            add_item(session, "dropped")
            raise LookupError
        add_item(session, "after")

    await flavour.work(body)

    assert observer.names() == ["before", "after"]


async def test_reads_are_repeatable(flavour: Flavour) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.get("/")
    async def read_twice(request: Request) -> list[list[str]]:
        session = await flavour.db.session(request)
        before = await flavour.do(session, names)
        await asyncio.create_task(flavour.work(add_item))
        return [before, await flavour.do(session, names)]

    assert (await call(app, "GET", "/")).json == [[], []]
    assert await flavour.work(names) == ["one"]


async def test_the_schema_can_be_rolled_back(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        session.execute(text("CREATE TABLE dropped (id INTEGER)"))
        current_unit().rollback_only()

    await flavour.work(body)

    with pytest.raises(OperationalError, match="no such table"):
        await flavour.work(lambda s: s.execute(text("SELECT * FROM dropped")))


# A unit inside another


def add_inner(session: Session) -> None:
    add_item(session, "inner")


async def serve_inside(
    flavour: Flavour,
    method: str,
    first: Callable[[Session], Any],
    then: Callable[[Session], Any] = add_inner,
    **options: Any,
) -> Any:
    """In a request: do *first* with its session, then open a block that writes."""
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.api_route("/", methods=METHODS)
    async def endpoint(request: Request) -> None:
        await flavour.do(await flavour.db.session(request), first)
        await flavour.work(then, **options)

    async with asyncio.timeout(4):  # the busy timeout is 5
        return await call(app, method, "/")


def add_quietly(session: Session) -> None:
    add_item(session, "outer")


async def test_a_block_that_would_wait_for_the_unit_around_it_is_refused_at_once(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await serve_inside(flavour, "POST", add_quietly)

    assert isinstance(reply.error, UsageError)
    assert 'nested="join"' in str(reply.error)
    assert 'nested="savepoint"' in str(reply.error)
    assert observer.names() == []


async def test_a_block_is_refused_inside_one_that_only_reads_but_has_the_lock(
    flavour: Flavour,
) -> None:
    reply = await serve_inside(flavour, "POST", names)

    assert isinstance(reply.error, UsageError)


async def test_a_block_is_refused_inside_a_get_that_has_written(
    flavour: Flavour,
) -> None:
    reply = await serve_inside(flavour, "GET", add_quietly)

    assert isinstance(reply.error, UsageError)


async def test_a_block_is_free_to_write_inside_a_get_that_reads(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await serve_inside(flavour, "GET", names)

    assert (reply.status, reply.error) == (200, None)
    assert observer.names() == ["inner"]


async def test_a_block_is_free_to_write_while_the_unit_around_it_has_sent_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    def unflushed(session: Session) -> None:
        session.add(Item(name="outer"))

    reply = await serve_inside(flavour, "POST", unflushed)

    assert (reply.status, reply.error) == (200, None)
    assert observer.names() == ["inner", "outer"]


@pytest.mark.parametrize("nested", ["join", "savepoint"])
async def test_a_block_that_joins_need_not_wait(
    flavour: Flavour, observer: Observer, nested: str
) -> None:
    reply = await serve_inside(flavour, "POST", add_quietly, nested=nested)

    assert (reply.status, reply.error) == (200, None)
    assert observer.names() == ["outer", "inner"]


# In memory


@pytest.fixture
async def memory(flavour: Flavour) -> AsyncIterator[Flavour]:
    db = type(flavour.db)(MEMORY[flavour.name])
    memory = Flavour(flavour.name, MEMORY[flavour.name], db)
    await memory.create_tables()
    yield memory
    assert db.pool_status().checked_out == 0
    await memory.dispose()


async def test_a_database_in_memory_is_shared_by_all_units(memory: Flavour) -> None:
    app = serve(memory, names)

    await memory.work(add_item)
    await call(serve(memory, lambda s: add_item(s, "two").id), "POST", "/")

    assert await memory.work(names) == ["one", "two"]
    assert (await call(app, "GET", "/")).json == ["one", "two"]


async def test_a_database_in_memory_is_no_file(
    flavour: Flavour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    memory = Flavour(flavour.name, "", type(flavour.db)(MEMORY[flavour.name]))
    await memory.create_tables()
    await memory.work(add_item)
    await memory.dispose()

    assert list((tmp_path / "here").iterdir()) == []


async def test_databases_in_memory_are_not_shared_with_others(memory: Flavour) -> None:
    other = type(memory.db)(memory.url)

    with pytest.raises(OperationalError, match="no such table"):
        await Flavour(memory.name, memory.url, other).work(names)

    await Flavour(memory.name, memory.url, other).dispose()


@pytest.mark.parametrize("name", ["sqlite:///:memory:", "sqlite://"])
async def test_both_names_of_a_database_in_memory_will_do(
    flavour: Flavour, name: str
) -> None:
    scheme = MEMORY[flavour.name].partition(":")[0]
    url = name.replace("sqlite", scheme)
    memory = Flavour(flavour.name, url, type(flavour.db)(url))
    await memory.create_tables()

    await memory.work(add_item)

    assert await memory.work(names) == ["one"]
    await memory.dispose()


async def test_a_database_in_memory_survives_its_connection(memory: Flavour) -> None:
    await memory.work(add_item)

    await memory.work(Session.invalidate)
    await memory.work(use_and_invalidate)
    await memory.dispose()

    assert await memory.work(names) == ["one"]


def use_and_invalidate(session: Session) -> None:
    names(session)
    session.invalidate()


async def test_a_database_in_memory_rolls_back(memory: Flavour) -> None:
    def body(session: Session) -> None:
        add_item(session)
        raise LookupError

    with pytest.raises(LookupError):
        await memory.work(body)

    assert await memory.work(names) == []


async def test_a_database_in_memory_enforces_foreign_keys(memory: Flavour) -> None:
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        await memory.work(lambda session: session.add(Child(parent_id=1)))


async def test_units_of_a_database_in_memory_take_turns(memory: Flavour) -> None:
    def count(session: Session) -> None:
        add_item(session, f"item {len(names(session))}")

    app = serve(memory, count)
    requests = [call(app, "POST", "/") for _ in range(6)]
    blocks = [memory.work(count) for _ in range(6)]
    await asyncio.gather(*requests, *blocks)

    assert memory.db.pool_status().size == 1
    assert await memory.work(names) == [f"item {n}" for n in range(12)]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_block_inside_a_unit_that_has_the_one_connection_is_refused_at_once(
    memory: Flavour, method: str
) -> None:
    reply = await serve_inside(memory, method, names)

    assert isinstance(reply.error, UsageError)
    assert 'nested="join"' in str(reply.error)


async def test_a_block_may_join_in_memory(memory: Flavour) -> None:
    reply = await serve_inside(memory, "POST", add_quietly, nested="join")

    assert (reply.status, reply.error) == (200, None)
    assert await memory.work(names) == ["outer", "inner"]


async def test_a_database_in_memory_is_gone_with_its_owner(flavour: Flavour) -> None:
    kinds = {"sqlite3": Database, "aiosqlite": AsyncDatabase}
    kind: Any = kinds[flavour.name]
    for _ in range(2):
        memory = Flavour(flavour.name, "", kind(MEMORY[flavour.name]))
        await memory.create_tables()
        assert await memory.work(names) == []
        await memory.work(add_item)
        await memory.dispose()
