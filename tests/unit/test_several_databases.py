"""Several databases, several middlewares, several units in one request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from psycopg.errors import SerializationFailure
from sqlalchemy import event, select
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import StreamingResponse

from support.asgi import Reply, call
from support.databases import check_nothing_is_left, empty_tables
from support.flavours import ASYNC, FLAVOURS, SYNC, Flavour, Observer, only
from support.models import Item, add_item, add_orphan, names
from support.pages import statements
from unitwork import (
    AsyncDatabase,
    Database,
    DBSessionMiddleware,
    MissingSessionError,
    Outcome,
    PartialCommitError,
    TransactionOptions,
    UnexpectedRollbackError,
    UnitOfWork,
    UsageError,
    current_unit,
)
from unitwork.fastapi import exception_handlers

pytestmark = pytest.mark.anyio

pairs = only("sqlite3", "psycopg", "asyncpg")
"""The first database; the second is an SQLite file, of either colour."""
with_room = only("psycopg", "psycopg-async", "asyncpg")
"""Where one unit may write while another does."""


@pytest.fixture(params=["sqlite3", "aiosqlite"])
async def second(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Flavour]:
    name: str = request.param
    url = f"{FLAVOURS[name]}:///{tmp_path}/second.db"
    kind = Database if name in SYNC else AsyncDatabase
    second = Flavour(name, url, kind(url, name="second"))
    empty_tables(url)
    yield second
    await check_nothing_is_left(second)
    await second.dispose()


@dataclass
class Two:
    """Two databases, and what others see in them."""

    first: Flavour
    second: Flavour

    def seen(self) -> tuple[list[str], list[str]]:
        return Observer(self.first.url).names(), Observer(self.second.url).names()

    async def do_both(
        self, one: Callable[[Session], Any], other: Callable[[Session], Any]
    ) -> None:
        await self.first.do(await self.first.db.session(), one)
        await self.second.do(await self.second.db.session(), other)

    async def request(self, endpoint: Callable[..., Any], **options: Any) -> Reply:
        app = FastAPI()
        databases = [self.first.db, self.second.db]
        app.add_middleware(DBSessionMiddleware, db=databases, **options)
        app.post("/")(endpoint)
        return await call(app, "POST", "/")


ROWS = select(Item.name).order_by(Item.id).execution_options(yield_per=1)


@pytest.fixture
def two(flavour: Flavour, second: Flavour) -> Two:
    return Two(flavour, second)


def add(session: Session) -> None:
    add_item(session)


def add_unflushed(session: Session) -> None:
    session.add(Item(name="one"))


# One middleware, several databases


@pairs
async def test_both_are_committed(two: Two) -> None:
    async def endpoint() -> None:
        await two.do_both(add, add)

    reply = await two.request(endpoint)

    assert (reply.status, reply.error, reply.complete) == (200, None, True)
    assert two.seen() == (["one"], ["one"])


@pairs
async def test_both_are_rolled_back(two: Two) -> None:
    async def endpoint() -> None:
        await two.do_both(add, add)
        raise HTTPException(409)

    reply = await two.request(endpoint)

    assert reply.status == 409
    assert two.seen() == ([], [])


@pairs
async def test_one_that_was_not_used_is_left_alone(two: Two) -> None:
    async def endpoint() -> None:
        await two.second.do(two.second.db.current, add)

    with statements(two.first.db.engine) as sent:
        reply = await two.request(endpoint)

    assert (reply.status, sent) == (200, [])
    assert two.seen() == ([], ["one"])


@pairs
async def test_each_is_an_attribute_of_the_state_and_the_first_is_db(two: Two) -> None:
    found: list[Any] = []

    async def endpoint(request: Request) -> None:
        found.append(request.state.db is await two.first.db.session())
        found.append(request.state.default is request.state.db)
        found.append(request.state.second is await two.second.db.session())
        found.append(hasattr(request.state, "third"))

    assert (await two.request(endpoint)).status == 200
    assert found == [True, True, True, False]


@pairs
async def test_the_attribute_may_have_another_name(two: Two) -> None:
    found: list[Any] = []

    async def endpoint(request: Request) -> None:
        found.append(request.state.session is two.first.db.current)
        found.append(hasattr(request.state, "db"))

    assert (await two.request(endpoint, state_attribute="session")).status == 200
    assert found == [True, False]


@pairs
async def test_each_is_a_dependency_of_its_own(two: Two) -> None:
    first, second = Depends(two.first.db.session), Depends(two.second.db.session)

    def endpoint(one: Any = first, other: Any = second) -> None:
        one.add(Item(name="of the first"))
        other.add(Item(name="of the second"))

    assert (await two.request(endpoint)).status == 200
    assert two.seen() == (["of the first"], ["of the second"])


@pairs
async def test_they_are_committed_in_the_order_in_which_they_were_given(
    two: Two,
) -> None:
    async def endpoint() -> None:
        await two.second.do(two.second.db.current, add)
        await two.first.do(two.first.db.current, add)

    commits: list[object] = []
    for one in (two.first, two.second):
        event.listen(one.sync_engine, "commit", lambda c: commits.append(c.dialect))
    await two.request(endpoint)

    engines = two.first.sync_engine, two.second.sync_engine
    assert commits == [engine.dialect for engine in engines]


@pairs
async def test_a_second_that_fails_at_flush_leaves_nothing_in_the_first(
    two: Two,
) -> None:
    await two.second.work(add)

    async def endpoint() -> None:
        await two.do_both(add, add_unflushed)

    reply = await two.request(endpoint)

    assert (reply.status, type(reply.error)) == (500, IntegrityError)
    assert two.seen() == ([], ["one"])


@pairs
async def test_a_second_that_fails_at_commit_says_that_the_first_stands(
    two: Two,
) -> None:
    units = []

    async def endpoint() -> None:
        units.append(current_unit())
        await two.do_both(add, add_orphan)

    reply = await two.request(endpoint)

    error = reply.error
    assert isinstance(error, PartialCommitError)
    assert (reply.status, type(error.__cause__)) == (500, IntegrityError)
    assert (error.committed, error.rolled_back) == (("default",), ("second",))
    assert error.unknown == ()
    assert "(committed: 'default'; rolled back: 'second')" in str(error)
    assert (units[0].outcome, units[0].reason) == (Outcome.PARTIAL, str(error))
    assert two.seen() == (["one"], [])


@pairs
async def test_a_partial_commit_calls_the_hooks_for_the_unknown(two: Two) -> None:
    done: list[str] = []

    async def endpoint() -> None:
        await two.do_both(add, add_orphan)
        for kind in ("on_commit", "on_rollback", "on_unknown"):
            getattr(current_unit(), kind)(done.append, kind)

    await two.request(endpoint)

    assert done == ["on_unknown"]


@pairs
async def test_a_partial_commit_is_never_tried_again(two: Two) -> None:
    attempts: list[int] = []

    async def endpoint() -> None:
        attempts.append(current_unit().attempt)
        await two.do_both(add, add)

    def fails(connection: object) -> None:
        raise OperationalError("COMMIT", None, SerializationFailure())

    event.listen(two.second.sync_engine, "commit", fails)
    options = TransactionOptions(attempts=3)
    reply = await two.request(endpoint, options=options)

    assert type(reply.error) is PartialCommitError
    assert attempts == [1]
    assert two.seen() == (["one"], [])


@pairs
async def test_a_first_that_fails_at_commit_leaves_nothing_in_the_second(
    two: Two,
) -> None:
    async def endpoint() -> None:
        await two.do_both(add_orphan, add)

    reply = await two.request(endpoint)

    assert (reply.status, type(reply.error)) == (500, IntegrityError)
    assert not hasattr(reply.error, "__notes__")
    assert two.seen() == ([], [])


@pairs
async def test_they_share_one_unit_and_its_hooks(two: Two) -> None:
    done: list[Any] = []

    async def endpoint() -> None:
        await two.do_both(add, add)
        current_unit().on_commit(lambda: done.append(two.seen()))

    await two.request(endpoint)

    assert done == [(["one"], ["one"])]


@pairs
async def test_rollback_only_is_for_both(two: Two) -> None:
    async def endpoint() -> None:
        await two.do_both(add, add)
        current_unit().rollback_only()

    assert (await two.request(endpoint)).status == 200
    assert two.seen() == ([], [])


@pairs
async def test_a_swallowed_error_in_one_is_no_success_for_the_other(two: Two) -> None:
    async def endpoint() -> None:
        await two.do_both(add, add)
        with suppress(LookupError):
            await two.second.work(fail, nested="join")

    reply = await two.request(endpoint)

    assert type(reply.error) is UnexpectedRollbackError
    assert two.seen() == ([], [])


def fail(session: Session) -> None:
    raise LookupError


@pairs
async def test_a_block_of_one_is_found_beside_the_request_of_the_other(
    two: Two,
) -> None:
    async def endpoint() -> None:
        first = two.first.db.current

        def body(session: Session) -> None:
            assert two.first.db.current is first
            assert getattr(two.second.db.current, "sync_session", session) is session
            add_item(session)

        await two.second.work(body)
        raise HTTPException(409)

    assert (await two.request(endpoint)).status == 409
    assert two.seen() == ([], ["one"])


# What is refused


DB = AsyncDatabase("sqlite+aiosqlite://")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "db is empty"),
        ((), "db is empty"),
        ("sqlite://", "db is 'sqlite://'; give a Database"),
        (None, "db is None; give a Database"),
        ([DB, "second"], "db is 'second'; give a Database"),
        ([DB, DB], "two databases are named 'default'"),
        ([DB, Database("sqlite://")], "two databases are named 'default'"),
    ],
)
def test_a_middleware_refuses(wrong: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DBSessionMiddleware(FastAPI(), wrong)


def test_an_attribute_that_is_another_databases_name_is_refused() -> None:
    other = AsyncDatabase("sqlite+aiosqlite://", name="other")

    with pytest.raises(UsageError, match="'other'"):
        DBSessionMiddleware(FastAPI(), [DB, other], state_attribute="other")


# Several middlewares


@pairs
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_two_middlewares_for_two_databases(
    two: Two, order: tuple[int, int]
) -> None:
    app = FastAPI()
    for index in order:
        database = (two.first.db, two.second.db)[index]
        app.add_middleware(
            DBSessionMiddleware, db=database, state_attribute=f"db{index}"
        )

    @app.post("/")
    async def endpoint(request: Request, fails: bool = False) -> None:
        await two.do_both(add, add)
        assert request.state.db0 is two.first.db.current
        assert request.state.db1 is two.second.db.current
        if fails:
            raise HTTPException(409)

    assert (await call(app, "POST", "/?fails=yes")).status == 409
    assert two.seen() == ([], [])
    reply = await call(app, "POST", "/")
    assert (reply.status, reply.error) == (200, None)
    assert two.seen() == (["one"], ["one"])


@pairs
@pytest.mark.parametrize(
    ("bodies", "stored"),
    [((add_orphan, add), ([], [])), ((add, add_orphan), (["one"], []))],
)
async def test_of_two_middlewares_the_inner_one_commits_first(
    two: Two, bodies: tuple[Any, Any], stored: tuple[list[str], list[str]]
) -> None:
    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(DBSessionMiddleware, db=two.first.db)
    app.add_middleware(DBSessionMiddleware, db=two.second.db)

    @app.post("/")
    async def endpoint() -> None:
        await two.do_both(*bodies)

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.error, reply.complete) == (409, None, True)
    assert two.seen() == stored


async def test_the_same_database_in_a_mounted_application_is_one_unit(
    flavour: Flavour, observer: Observer
) -> None:
    units: list[UnitOfWork] = []
    inner, outer = FastAPI(), FastAPI()
    inner.add_middleware(DBSessionMiddleware, db=flavour.db)
    outer.mount("/inner", inner)

    @outer.middleware("http")
    async def note(request: Request, call_next: Any) -> Any:
        units.append(current_unit())
        return await call_next(request)

    outer.add_middleware(DBSessionMiddleware, db=flavour.db)

    @inner.post("/")
    async def endpoint() -> None:
        units.append(current_unit())
        await flavour.do(flavour.db.current, add)

    with statements(flavour.db.engine) as sent:
        reply = await call(outer, "POST", "/inner/")

    assert (reply.status, reply.error, reply.complete) == (200, None, True)
    assert units[0] is units[1]
    assert sent.count("COMMIT") == 1
    assert observer.names() == ["one"]


async def test_the_same_middleware_twice_is_one_unit(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(flavour.endpoint(lambda session: add_item(session).id))

    with statements(flavour.db.engine) as sent:
        reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete, sent.count("COMMIT")) == (200, True, 1)
    assert observer.names() == ["one"]


@pairs
async def test_a_mounted_application_may_have_one_more_database(two: Two) -> None:
    inner, outer = FastAPI(), FastAPI()
    outer.add_middleware(DBSessionMiddleware, db=two.first.db)
    inner.add_middleware(DBSessionMiddleware, db=two.second.db)
    outer.mount("/inner", inner)

    @inner.post("/")
    async def endpoint() -> None:
        await two.do_both(add, add)

    assert (await call(outer, "POST", "/inner/")).status == 200
    assert two.seen() == (["one"], ["one"])


@pairs
async def test_a_mounted_application_may_share_one_of_its_two_databases(
    two: Two,
) -> None:
    inner, outer = FastAPI(), FastAPI()
    outer.add_middleware(DBSessionMiddleware, db=two.first.db)
    inner.add_middleware(DBSessionMiddleware, db=[two.first.db, two.second.db])
    outer.mount("/inner", inner)

    @inner.post("/")
    async def endpoint(request: Request) -> None:
        await two.do_both(add, add)
        found = [request.state.db, request.state.default, two.first.db.current]
        found.append(await two.first.db.session(request))
        assert found == [await two.first.db.session()] * 4
        assert request.state.second is two.second.db.current

    with statements(two.first.db.engine) as sent:
        reply = await call(outer, "POST", "/inner/")

    assert (reply.status, reply.error, sent.count("COMMIT")) == (200, None, 1)
    assert two.seen() == (["one"], ["one"])


@pairs
async def test_a_database_without_a_middleware_is_missed(two: Two) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=two.first.db)

    @app.post("/")
    async def endpoint() -> None:
        await two.second.db.session()

    reply = await call(app, "POST", "/")

    assert type(reply.error) is MissingSessionError
    assert "'second'" in str(reply.error)


# Side by side in one request


@only(*ASYNC)
async def test_units_may_run_side_by_side(flavour: Flavour, observer: Observer) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    sessions: set[object] = set()

    async def work(number: int) -> None:
        async with flavour.db.transaction() as session:
            sessions.add(session)
            assert flavour.db.current is session
            await session.run_sync(add_item, str(number))
            assert flavour.db.current is session

    @app.post("/")
    async def endpoint() -> None:
        await asyncio.gather(*(work(number) for number in range(4)))

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.error, len(sessions)) == (200, None, 4)
    assert sorted(observer.names()) == ["0", "1", "2", "3"]


@only("psycopg-async", "asyncpg")
async def test_units_side_by_side_are_judged_one_by_one(
    flavour: Flavour, observer: Observer
) -> None:
    both_inside = asyncio.Barrier(3)

    async def work(name: str, body: Callable[[Session], Any]) -> None:
        async with flavour.db.transaction() as session:
            await session.run_sync(add_item, name)
            await both_inside.wait()
            await session.run_sync(body)

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def endpoint() -> list[str]:
        one, two = work("good", names), work("bad", fail)
        await flavour.db.current.run_sync(add_item, "of the request")
        results = asyncio.gather(one, two, return_exceptions=True)
        await both_inside.wait()
        return [type(result).__name__ for result in await results]

    reply = await call(app, "POST", "/")

    assert reply.json == ["NoneType", "LookupError"]
    assert sorted(observer.names()) == ["good", "of the request"]


# One inside the other


async def in_request(
    flavour: Flavour, inner: Callable[[Session], Any], *, status: int = 200, **how: Any
) -> Reply:
    """Add "outer", run *inner* in a block, go on, answer with *status*."""
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/", status_code=status)
    async def endpoint() -> None:
        session = await flavour.db.session()
        await flavour.do(session, partial(add_item, name="outer"))
        with suppress(LookupError):
            await flavour.work(inner, **how)
        await flavour.do(session, partial(add_item, name="later"))

    return await call(app, "POST", "/")


def add_inner(session: Session) -> None:
    add_item(session, "inner")


def fail_inner(session: Session) -> None:
    add_item(session, "inner")
    raise LookupError


@pytest.mark.parametrize(
    ("nested", "inner", "status", "stored"),
    [
        ("join", add_inner, 200, ["outer", "inner", "later"]),
        ("join", add_inner, 409, []),
        ("join", fail_inner, 409, []),
        ("savepoint", add_inner, 200, ["outer", "inner", "later"]),
        ("savepoint", add_inner, 409, []),
        ("savepoint", fail_inner, 200, ["outer", "later"]),
        ("savepoint", fail_inner, 409, []),
    ],
)
async def test_a_block_in_the_same_session_shares_the_fate_of_the_request(
    flavour: Flavour,
    observer: Observer,
    nested: str,
    inner: Callable[[Session], Any],
    status: int,
    stored: list[str],
) -> None:
    reply = await in_request(flavour, inner, status=status, nested=nested)

    assert (reply.status, reply.error) == (status, None)
    assert observer.names() == stored


@with_room
@pytest.mark.parametrize(
    ("inner", "status", "stored"),
    [
        (add_inner, 200, {"outer", "inner", "later"}),
        (add_inner, 409, {"inner"}),
        (fail_inner, 200, {"outer", "later"}),
        (fail_inner, 409, set()),
    ],
)
async def test_a_block_of_its_own_has_its_own_fate(
    flavour: Flavour,
    observer: Observer,
    inner: Callable[[Session], Any],
    status: int,
    stored: set[str],
) -> None:
    reply = await in_request(flavour, inner, status=status)

    assert (reply.status, reply.error) == (status, None)
    assert set(observer.names()) == stored


async def test_a_joined_block_that_failed_costs_the_request_its_success(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await in_request(flavour, fail_inner, nested="join")

    assert type(reply.error) is UnexpectedRollbackError
    assert type(reply.error.__cause__) is LookupError
    assert observer.names() == []


@with_room
async def test_hooks_go_with_the_block_that_registered_them(
    flavour: Flavour, observer: Observer
) -> None:
    done: list[str] = []

    def hooked(name: str, session: Session) -> None:
        add_item(session, name)
        current_unit().on_commit(lambda: done.append(f"{name}: {observer.names()}"))

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def endpoint() -> None:
        await flavour.do(flavour.db.current, partial(hooked, "outer"))
        await flavour.work(partial(hooked, "own"))
        await flavour.work(partial(hooked, "joined"), nested="join")
        await flavour.work(partial(hooked, "saved"), nested="savepoint")
        done.append("the end")

    assert (await call(app, "POST", "/")).status == 200
    everything = ["outer", "own", "joined", "saved"]
    assert done == [
        "own: ['own']",
        "the end",
        *(f"{name}: {everything}" for name in ("outer", "joined", "saved")),
    ]


@with_room
async def test_three_blocks_deep_each_finds_its_own(flavour: Flavour) -> None:
    outcomes: dict[str, UnitOfWork] = {}

    async with flavour.block() as outer:
        outcomes["outer"] = current_unit()
        async with flavour.block() as middle:
            outcomes["middle"] = current_unit()
            async with flavour.block(nested="join") as inner:
                assert current_unit() is outcomes["middle"]
                assert inner is middle is not outer
            assert outcomes["middle"].outcome is None
        assert outcomes["middle"].outcome is Outcome.EMPTY
        assert flavour.db.current is outer


# While one of them is being streamed


@pytest.mark.filterwarnings("ignore:.*ServerCursor:ResourceWarning")
@only("psycopg", "asyncpg")
async def test_hooks_hear_of_the_commit_although_the_stream_fails_later(
    two: Two,
) -> None:
    heard: list[str] = []
    for name in ("one", "two"):
        await two.first.work(partial(add_item, name=name))

    async def body(rows: object) -> AsyncIterator[str]:
        yield "1"
        raise LookupError

    async def endpoint() -> StreamingResponse:
        current_unit().on_commit(heard.append, "committed")
        current_unit().on_rollback(heard.append, "rolled back")
        await two.second.do(await two.second.db.session(), add_item)
        session: Any = await two.first.db.session()
        rows = await two.first.do(session, lambda s: s.execute(ROWS))
        return StreamingResponse(body(rows))

    reply = await two.request(endpoint)

    assert (reply.body, type(reply.error)) == (b"1", LookupError)
    assert (heard, two.seen()[1]) == (["committed"], ["one"])
