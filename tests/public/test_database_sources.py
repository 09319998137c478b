"""`Database` and `AsyncDatabase`: what they are given, what they refuse, overriding."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI, HTTPException
from sqlalchemy import create_engine, event, func, make_url, text
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker
from sqlmodel import Session as SQLModelSession
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession as AsyncSQLModelSession
from starlette.requests import Request

from support.asgi import call
from support.endpoints import serve_fastapi
from support.flavours import ASYNC, POSTGRESQL, SYNC, Flavour, Observer, only
from support.models import Item, add_item, names
from unitwork import (
    AsyncDatabase,
    Database,
    DatabaseSettings,
    DBSessionMiddleware,
    PoolStatus,
    UsageError,
    current_unit,
)

pytestmark = pytest.mark.anyio

KINDS: list[Any] = [AsyncDatabase, Database]
both = pytest.mark.parametrize("kind", KINDS)
one_of_each = only("sqlite3", "aiosqlite")


def open_engine(flavour: Flavour) -> Any:
    return (create_async_engine if flavour.is_async else create_engine)(flavour.url)


def make_maker(flavour: Flavour, engine: Any = None, **options: Any) -> Any:
    maker: Any = async_sessionmaker if flavour.is_async else sessionmaker
    return maker(engine, **options)


def over(flavour: Flavour, source: Any, **options: Any) -> Flavour:
    """A database of the same flavour made from *source*."""
    return Flavour(flavour.name, flavour.url, type(flavour.db)(source, **options))


@pytest.fixture
async def engine(flavour: Flavour) -> AsyncIterator[Any]:
    """An engine of the test's own, on the database of *flavour*."""
    engine = open_engine(flavour)
    yield engine
    await over(flavour, engine).dispose()


@pytest.fixture
async def engine2(flavour: Flavour) -> AsyncIterator[Any]:
    engine = open_engine(flavour)
    yield engine
    await over(flavour, engine).dispose()


def sync_engine(engine: Any) -> Any:
    return getattr(engine, "sync_engine", engine)


# What it can be given


def give_maker(flavour: Flavour, engine: Any) -> Any:
    return make_maker(flavour, engine)


def give_engine_by_callable(flavour: Flavour, engine: Any) -> Any:
    return lambda: engine


def give_maker_by_callable(flavour: Flavour, engine: Any) -> Any:
    maker = make_maker(flavour, engine)
    return lambda: maker


SOURCES = {
    "a URL as a string": lambda flavour, engine: flavour.url,
    "a URL": lambda flavour, engine: make_url(flavour.url),
    "an engine": lambda flavour, engine: engine,
    "a sessionmaker": give_maker,
    "a callable giving an engine": give_engine_by_callable,
    "a callable giving a sessionmaker": give_maker_by_callable,
}


@pytest.mark.parametrize("kind", SOURCES)
async def test_stores_whatever_it_was_made_from(
    flavour: Flavour, observer: Observer, engine: Any, kind: str
) -> None:
    made = over(flavour, SOURCES[kind](flavour, engine))

    await made.work(add_item)

    assert observer.names() == ["one"]
    assert await made.work(names) == ["one"]
    await made.dispose()


@pytest.mark.parametrize("kind", list(SOURCES)[2:])
async def test_an_engine_that_is_given_is_the_engine(
    flavour: Flavour, engine: Any, kind: str
) -> None:
    made = over(flavour, SOURCES[kind](flavour, engine))

    assert sync_engine(made.db.engine) is sync_engine(engine)
    assert await made.work(Session.get_bind) is sync_engine(engine)


async def test_a_callable_is_asked_each_time(
    flavour: Flavour, engine: Any, engine2: Any
) -> None:
    answers = [engine]
    late = over(flavour, lambda: answers[-1])
    assert await late.work(Session.get_bind) is sync_engine(engine)

    answers.append(engine2)

    assert await late.work(Session.get_bind) is sync_engine(engine2)
    assert sync_engine(late.db.engine) is sync_engine(engine2)


@one_of_each
async def test_a_callable_is_not_asked_before_it_must(flavour: Flavour) -> None:
    def too_early() -> Any:
        raise LookupError

    late = over(flavour, too_early)
    DBSessionMiddleware(FastAPI(), late.db)

    with pytest.raises(LookupError):
        await late.work(add_item)


@one_of_each
async def test_a_callable_that_fails_leaves_no_unit_to_wait_for(
    flavour: Flavour,
) -> None:
    def fail() -> Any:
        raise LookupError

    late = over(flavour, fail)
    reply = await call(serve_fastapi(late, add_item), "POST", "/")
    with pytest.raises(LookupError):
        await late.work(add_item)

    assert isinstance(reply.error, LookupError)
    assert await late.db._source.drain() == []


async def test_a_sessionmaker_may_be_configured_anew(
    flavour: Flavour, engine: Any, engine2: Any
) -> None:
    maker = make_maker(flavour, engine)
    made = over(flavour, maker)
    assert await made.work(lambda session: session.autoflush) is True

    maker.configure(bind=engine2, autoflush=False)

    assert await made.work(lambda session: session.autoflush) is False
    assert await made.work(Session.get_bind) is sync_engine(engine2)
    assert sync_engine(made.db.engine) is sync_engine(engine2)


async def test_a_sessionmaker_may_get_its_engine_later(
    flavour: Flavour, observer: Observer, engine: Any
) -> None:
    maker = make_maker(flavour)
    made = over(flavour, maker)
    DBSessionMiddleware(FastAPI(), made.db)

    maker.configure(bind=engine)

    await made.work(add_item)
    assert observer.names() == ["one"]


@one_of_each
async def test_a_sessionmaker_without_an_engine_is_refused_when_it_is_used(
    flavour: Flavour,
) -> None:
    made = over(flavour, make_maker(flavour))

    with pytest.raises(UsageError, match="sessionmaker bound to an engine"):
        await made.work(add_item)


@one_of_each
async def test_the_options_of_a_sessionmaker_hold(
    flavour: Flavour, engine: Any
) -> None:
    maker = make_maker(flavour, engine, autoflush=False, info={"of": "the maker"})

    def look(session: Session) -> None:
        assert session.autoflush is False
        assert session.info == {"of": "the maker"}

    await over(flavour, maker).work(look)


@both
def test_says_what_it_is(kind: Any) -> None:
    db = kind(lambda: None, name="reports")

    assert repr(db) == f"<{kind.__name__} 'reports'>"
    assert db.name == "reports"
    assert db.settings == DatabaseSettings()


@one_of_each
async def test_two_of_them_may_share_an_engine(flavour: Flavour, engine: Any) -> None:
    one, two = over(flavour, engine), over(flavour, engine, name="two")

    await one.work(add_item)

    assert await two.work(names) == ["one"]


# What it refuses


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (AsyncDatabase, "sqlite:///x.db", r"async driver.*use sqlite\+aiosqlite"),
        (AsyncDatabase, "postgresql+psycopg2://h/d", r"asyncpg or postgresql\+psycopg"),
        (Database, "sqlite+aiosqlite:///x.db", "names an async driver; use AsyncData"),
        (Database, "postgresql+asyncpg://h/d", "names an async driver; use AsyncData"),
        (Database, "nonsense://h/d", r"can't be used: .*nonsense"),
        (AsyncDatabase, "nonsense+driver://h/d", r"can't be used: .*nonsense"),
        (Database, "not a url", "can't be used: "),
        (Database, "", "can't be used: "),
    ],
)
def test_a_url_that_can_not_work_is_refused_at_once(
    kind: Any, given: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        kind(given)


def test_a_refusal_does_not_show_the_password() -> None:
    with pytest.raises(UsageError) as caught:
        Database("postgresql+asyncpg://me:secret@host/db")

    assert "secret" not in str(caught.value)


@one_of_each
def test_the_other_flavours_engine_is_refused(flavour: Flavour, engine: Any) -> None:
    other: Any = Database if flavour.is_async else AsyncDatabase
    right = type(flavour.db).__name__

    for kind in list(SOURCES)[2:4]:
        with pytest.raises(UsageError, match=rf"^{other.__name__} .*; use {right}$"):
            other(SOURCES[kind](flavour, engine))


@one_of_each
def test_the_other_flavours_engine_is_refused_when_it_comes_late(
    flavour: Flavour, engine: Any
) -> None:
    other: Any = Database if flavour.is_async else AsyncDatabase
    late = other(lambda: engine)

    with pytest.raises(UsageError, match=f"use {type(flavour.db).__name__}"):
        _ = late.engine


@both
@pytest.mark.parametrize("wrong", [None, 42, object(), ["sqlite://"]])
def test_a_plain_object_is_refused(kind: Any, wrong: Any) -> None:
    with pytest.raises(
        UsageError, match=r"give a URL, an? .*engine, an? .*sessionmaker"
    ):
        kind(wrong)


@both
@pytest.mark.parametrize("name", ["", None, 7])
def test_a_name_that_is_none_is_refused(kind: Any, name: Any) -> None:
    with pytest.raises(UsageError, match=r"^name is .*; give a name"):
        kind(lambda: None, name=name)


@one_of_each
def test_options_of_an_engine_that_is_made_already_are_refused(
    flavour: Flavour, engine: Any
) -> None:
    with pytest.raises(UsageError, match=r"echo, pool_size: .* go with a URL"):
        over(flavour, engine, pool_size=3, echo=True)


@one_of_each
def test_a_session_class_beside_a_sessionmaker_is_refused(
    flavour: Flavour, engine: Any
) -> None:
    with pytest.raises(UsageError, match="has its own class_"):
        over(flavour, make_maker(flavour, engine), session_class=Session)


# Its sessions


class OurSession(Session):
    def shout(self, name: str) -> None:
        add_item(self, name.upper())


class OurAsyncSession(AsyncSession):
    sync_session_class = OurSession

    async def shout(self, name: str) -> None:
        await self.run_sync(OurSession.shout, name)


@only(*SYNC)
async def test_sessions_are_of_the_session_class(
    flavour: Flavour, observer: Observer
) -> None:
    ours = flavour.another(session_class=OurSession)

    def body(session: Session) -> None:
        assert isinstance(session, OurSession)
        session.shout("loud")

    await ours.work(body)
    await ours.dispose()

    assert observer.names() == ["LOUD"]


@only(*ASYNC)
async def test_async_sessions_are_of_the_session_class(
    flavour: Flavour, observer: Observer
) -> None:
    ours = flavour.another(session_class=OurAsyncSession)

    async with ours.db.transaction() as session:
        assert isinstance(session, OurAsyncSession)
        assert isinstance(session.sync_session, OurSession)
        await session.shout("loud")
    await ours.dispose()

    assert observer.names() == ["LOUD"]


@only(*SYNC)
async def test_sessions_of_sqlmodel_can_exec(flavour: Flavour) -> None:
    ours = flavour.another(session_class=SQLModelSession)

    def body(session: Any) -> list[str]:
        add_item(session)
        return list(session.exec(select(Item.name)))

    assert await ours.work(body) == ["one"]
    await ours.dispose()


@only(*ASYNC)
async def test_async_sessions_of_sqlmodel_can_exec(flavour: Flavour) -> None:
    ours = flavour.another(session_class=AsyncSQLModelSession)

    async with ours.db.transaction() as session:
        session.add(Item(name="one"))
        assert list(await session.exec(select(Item.name))) == ["one"]
    await ours.dispose()


@only(*SYNC)
async def test_a_sessionmaker_of_sqlmodels_sessions_will_do(
    flavour: Flavour, engine: Any
) -> None:
    made = over(flavour, sessionmaker(engine, class_=SQLModelSession))

    def body(session: Any) -> int:
        add_item(session)
        return int(session.exec(select(func.count(Item.id))).one())

    assert await made.work(body) == 1


@pytest.mark.parametrize("source", ["url", "engine", "maker"])
async def test_the_session_options_hold(
    flavour: Flavour, engine: Any, source: str
) -> None:
    given = {
        "url": flavour.url,
        "engine": engine,
        "maker": make_maker(flavour, engine, autoflush=True, expire_on_commit=True),
    }
    made = over(
        flavour,
        given[source],
        session_options={"autoflush": False, "info": {"ours": 1}},
    )

    def look(session: Session) -> None:
        assert (session.autoflush, session.info) == (False, {"ours": 1})

    await made.work(look)
    await made.dispose()


@one_of_each
async def test_sessions_do_not_expire_on_commit_unless_asked_to(
    flavour: Flavour,
) -> None:
    options = {"expire_on_commit": True}
    expiring = flavour.another(session_options=options)

    def item_is_expired(session: Session) -> bool:
        item = add_item(session)
        session.commit()
        return "name" not in item.__dict__

    assert await flavour.work(item_is_expired) is False
    with pytest.raises(Exception, match="UNIQUE"):
        await flavour.work(item_is_expired)
    await flavour.work(lambda session: session.execute(text("DELETE FROM item")))
    assert await expiring.work(item_is_expired) is True
    await expiring.dispose()


# Events


@only(*SYNC)
async def test_events_of_the_session_class_are_heard(flavour: Flavour) -> None:
    class Heard(Session):
        pass

    heard: list[str] = []
    ours = flavour.another(session_class=Heard)
    event.listen(Heard, "before_flush", lambda *args: heard.append("early"))
    await ours.work(add_item)
    event.listen(Heard, "after_commit", lambda session: heard.append("late"))
    await ours.work(partial(add_item, name="two"))
    await ours.dispose()

    assert heard == ["early", "early", "late"]


@only(*ASYNC)
async def test_events_of_the_sync_session_class_are_heard(flavour: Flavour) -> None:
    class Heard(Session):
        pass

    class AsyncHeard(AsyncSession):
        sync_session_class = Heard

    heard: list[str] = []
    ours = flavour.another(session_class=AsyncHeard)
    event.listen(Heard, "before_flush", lambda *args: heard.append("early"))
    await ours.work(add_item)
    event.listen(Heard, "after_commit", lambda session: heard.append("late"))
    await ours.work(partial(add_item, name="two"))
    await ours.dispose()

    assert heard == ["early", "early", "late"]


@only(*SYNC)
async def test_events_of_a_sessionmaker_are_heard(
    flavour: Flavour, engine: Any
) -> None:
    heard: list[str] = []
    maker = sessionmaker(engine)
    made = over(flavour, maker)
    event.listen(maker, "before_flush", lambda *args: heard.append("early"))
    await made.work(add_item)
    event.listen(maker, "after_commit", lambda session: heard.append("late"))
    await made.work(partial(add_item, name="two"))

    assert heard == ["early", "early", "late"]


@only(*ASYNC)
async def test_events_of_a_sessionmakers_sync_session_class_are_heard(
    flavour: Flavour, engine: Any
) -> None:
    class Heard(Session):
        pass

    heard: list[str] = []
    made = over(flavour, async_sessionmaker(engine, sync_session_class=Heard))
    event.listen(Heard, "after_commit", lambda session: heard.append("commit"))
    await made.work(add_item)

    assert heard == ["commit"]


# Its connections


async def test_pool_status_counts_the_connections(flavour: Flavour) -> None:
    status = flavour.db.pool_status
    assert status() == PoolStatus(size=5, checked_out=0, idle=0, waiting=0)

    def body(session: Session) -> None:
        names(session)
        assert status() == (5, 1, 0, 0)

    await flavour.work(body)

    assert status() == (5, 0, 1, 0)


async def test_pool_status_counts_the_overflow(flavour: Flavour) -> None:
    larger = flavour.another(pool_size=2, max_overflow=3)
    endless = flavour.another(pool_size=2, max_overflow=-1)

    assert larger.db.pool_status().size == 5
    assert endless.db.pool_status().size is None


@one_of_each
async def test_a_disposed_database_can_be_used_again(
    flavour: Flavour, observer: Observer
) -> None:
    await flavour.work(add_item)
    await flavour.dispose()
    assert flavour.db.pool_status().idle == 0

    await flavour.work(partial(add_item, name="two"))

    assert observer.names() == ["one", "two"]


# Event loops and threads


async def in_its_own_loop(body: Callable[[], Any]) -> Any:
    """Run an async *body* in an event loop of its own, in another thread."""
    return await to_thread.run_sync(lambda: asyncio.run(body()))


async def test_works_in_one_event_loop_after_another(
    flavour: Flavour, observer: Observer
) -> None:
    async def in_a_loop(name: str) -> None:
        await flavour.work(partial(add_item, name=name))
        await flavour.dispose()

    for name in ("one", "two", "three"):
        await in_its_own_loop(partial(in_a_loop, name))

    assert observer.names() == ["one", "two", "three"]


@only(*SYNC)
async def test_works_in_two_threads_at_once(
    flavour: Flavour, observer: Observer
) -> None:
    together = threading.Barrier(2, timeout=10)
    numbers = range(5)

    def in_thread(who: str) -> None:
        for number in numbers:
            together.wait()
            with flavour.db.transaction() as session:
                add_item(session, f"{who}{number}")

    await asyncio.gather(*(to_thread.run_sync(in_thread, who) for who in "ab"))

    assert sorted(observer.names()) == [f"{who}{n}" for who in "ab" for n in numbers]


def test_two_event_loops_may_take_turns(
    flavour: Flavour, observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    with start_blocking_portal() as a, start_blocking_portal() as b:
        for name, loop in [("a1", a), ("b1", b), ("a2", a), ("b2", b)]:
            loop.call(flavour.work, partial(add_item, name=name))
        b.call(flavour.dispose)

    assert observer.names() == ["a1", "b1", "a2", "b2"]
    assert caplog.messages == []


# asyncpg itself complains that nobody has closed them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_connections_of_an_event_loop_that_is_gone_are_not_used(
    flavour: Flavour, observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one", "two", "three"):
        with start_blocking_portal() as loop:
            loop.call(flavour.work, partial(add_item, name=name))
    with start_blocking_portal() as loop:
        loop.call(flavour.work, names)
        loop.call(flavour.dispose)
    gc.collect()

    assert observer.names() == ["one", "two", "three"]
    assert caplog.messages == []


# Overriding


@asynccontextmanager
async def isolated(flavour: Flavour) -> AsyncIterator[Any]:
    """A session as tests use it: whatever it commits is taken back."""
    options: dict[str, Any] = {
        "join_transaction_mode": "create_savepoint",
        "expire_on_commit": False,
    }
    if flavour.is_async:
        async with flavour.db.engine.connect() as line, line.begin() as outermost:
            async with AsyncSession(line, **options) as session:
                yield session
            await outermost.rollback()
    else:
        with flavour.db.engine.connect() as line, line.begin() as outermost:
            with Session(line, **options) as session:
                yield session
            outermost.rollback()


@pytest.fixture
def app(flavour: Flavour) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(flavour.endpoint(lambda session: add_item(session).id))
    app.get("/")(flavour.endpoint(names))

    def fail(session: Session) -> None:
        add_item(session, "dropped")
        raise HTTPException(409)

    app.post("/fails")(flavour.endpoint(fail))
    return app


async def test_override_gives_the_session_in_all_four_ways(
    flavour: Flavour, app: FastAPI
) -> None:
    found: list[Any] = []

    @app.get("/four")
    async def endpoint(request: Request) -> None:
        found.append(request.state.db)
        found.append(await flavour.db.session(request))
        found.append(await flavour.db.session())
        found.append(flavour.db.current)

    async with isolated(flavour) as session:
        with flavour.db.override(session):
            reply = await call(app, "GET", "/four")

    assert (reply.status, reply.error) == (200, None)
    assert found == [session] * 4


async def test_override_gives_the_session_to_blocks_and_dependencies(
    flavour: Flavour, app: FastAPI
) -> None:
    async with isolated(flavour) as session:
        with flavour.db.override(session):
            await flavour.work(add_item)
            reply = await call(app, "GET", "/")

        assert reply.json == ["one"]
        assert await flavour.do(session, names) == ["one"]


async def test_units_commit_an_overriding_session_but_leave_it_open(
    flavour: Flavour, app: FastAPI
) -> None:
    async with isolated(flavour) as session:
        commits: list[object] = []
        sync_session = getattr(session, "sync_session", session)
        event.listen(sync_session, "after_commit", commits.append)
        with flavour.db.override(session):
            kept = await flavour.do(session, partial(add_item, name="kept"))
            await call(app, "POST", "/")

        assert commits == [sync_session]
        assert not session.in_transaction()
        assert kept in session
        await flavour.do(session, partial(add_item, name="two"))
        assert await flavour.do(session, names) == ["kept", "one", "two"]


async def test_units_roll_an_overriding_session_back_but_leave_it_open(
    flavour: Flavour, app: FastAPI
) -> None:
    async with isolated(flavour) as session:
        with flavour.db.override(session):
            await call(app, "POST", "/")
            reply = await call(app, "POST", "/fails")

        assert reply.status == 409
        assert await flavour.do(session, names) == ["one"]


async def test_override_isolates_a_test(
    flavour: Flavour, app: FastAPI, observer: Observer
) -> None:
    for _ in range(2):
        async with isolated(flavour) as session:
            with flavour.db.override(session):
                assert (await call(app, "POST", "/")).status == 200
                assert (await call(app, "GET", "/")).json == ["one"]
        assert observer.names() == []


async def test_hooks_run_on_an_overriding_session_too(flavour: Flavour) -> None:
    done: list[str] = []

    def body(session: Session) -> None:
        add_item(session)
        current_unit().on_commit(done.append, "committed")

    async with isolated(flavour) as session:
        with flavour.db.override(session):
            await flavour.work(body)

    assert done == ["committed"]


@one_of_each
async def test_overrides_may_be_nested(flavour: Flavour) -> None:
    kind: Any = AsyncSession if flavour.is_async else Session
    outer, inner = kind(), kind()

    async def current() -> Any:
        found: list[Any] = []
        await flavour.work(lambda session: found.append(flavour.db.current))
        return found[0]

    with flavour.db.override(outer):
        with flavour.db.override(inner):
            assert await current() is inner
        assert await current() is outer
    assert await current() not in (inner, outer)


@one_of_each
async def test_an_override_ends_when_its_block_raises(flavour: Flavour) -> None:
    kind: Any = AsyncSession if flavour.is_async else Session

    with pytest.raises(LookupError), flavour.db.override(kind()):
        raise LookupError

    await flavour.work(lambda session: names(session))


@pytest.mark.parametrize(
    ("kind", "url", "wrong"),
    [
        (Database, "sqlite://", AsyncSession()),
        (AsyncDatabase, "sqlite+aiosqlite://", Session()),
        (Database, "sqlite://", "session"),
        (Database, "sqlite://", sessionmaker()),
        (AsyncDatabase, "sqlite+aiosqlite://", None),
    ],
)
def test_override_refuses_what_is_no_session_of_its_flavour(
    kind: Any, url: str, wrong: Any
) -> None:
    db = kind(url)

    with pytest.raises(UsageError, match="can't be given"), db.override(wrong):
        pytest.fail("it was accepted")


async def test_a_dependency_override_replaces_the_session_of_its_endpoints_alone(
    flavour: Flavour, app: FastAPI, observer: Observer
) -> None:
    async with isolated(flavour) as session:
        app.dependency_overrides[flavour.db.session] = lambda: session
        reply = await call(app, "POST", "/")

        assert reply.status == 200
        assert session.in_transaction()  # nobody has committed it
        assert await flavour.do(session, names) == ["one"]
    app.dependency_overrides.clear()

    assert observer.names() == []
    assert (await call(app, "POST", "/")).status == 200
    assert observer.names() == ["one"]


@only(*POSTGRESQL)
async def test_one_that_can_not_be_reached_fails_when_it_is_used(
    flavour: Flavour, tmp_path: Path
) -> None:
    nowhere = make_url(flavour.url).set(host=str(tmp_path), port=1)
    made = over(flavour, nowhere)

    with pytest.raises(Exception, match=r"(?i)connect|No such file"):
        await made.work(add_item)

    assert made.db.pool_status().checked_out == 0
