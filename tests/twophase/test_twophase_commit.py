"""Two databases that are committed as one, whatever breaks in between."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from asyncio.subprocess import create_subprocess_exec
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from anyio import to_thread
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn
from test_lifespan import Life

from support.asgi import call
from support.databases import check_nothing_is_left, empty_tables
from support.flavours import MARIADB, connect_mariadb
from support.models import Item, add_item, add_orphan, names
from support.pages import statements
from support.pairs import COMMIT, PREPARE, Pair, Side, another_database, proxied
from support.pool import eventually
from support.proxy import Line
from support.servers import TESTS
from support.websocket import Socket
from unitwork import (
    AsyncDatabase,
    CommitUnknownError,
    Database,
    DatabaseSettings,
    DBSessionMiddleware,
    Outcome,
    PartialCommitError,
    UsageError,
    arecover,
    recover,
    recovery,
    transactional,
)
from unitwork._branch import Branch
from unitwork._twophase import Order
from unitwork.recovery import _call, _recovering, _Wait

pytestmark = pytest.mark.anyio

PAIRS = [
    ("psycopg", "psycopg"),
    ("psycopg-async", "asyncpg"),
    ("asyncpg", "asyncpg"),
    ("psycopg", "pymysql"),
    ("asyncpg", "asyncmy"),
    ("pymysql", "psycopg-async"),
    ("pymysql", "asyncmy"),
    ("asyncmy", "asyncmy"),
]
GIVING_UP = DatabaseSettings(verify_timeout=0.5)
IMPATIENT = DatabaseSettings(commit_timeout=1.0)
SOME = (("psycopg", "psycopg"), ("asyncpg", "asyncmy"), ("pymysql", "asyncmy"))


@pytest.fixture(scope="module")
def second_postgresql(postgresql: str) -> Iterator[str]:
    with another_database(postgresql) as url:
        yield url


@pytest.fixture(scope="module")
def second_mariadb(mariadb: str) -> Iterator[str]:
    with another_database(mariadb) as url:
        yield url


def only_pairs(*pairs: tuple[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pair", pairs, indirect=True, ids="+".join)


@pytest.fixture(params=PAIRS, ids="+".join)
async def pair(
    request: pytest.FixtureRequest, anyio_backend: str
) -> AsyncIterator[Pair]:
    one, other = request.param
    urls = []
    for name, second in ((one, ""), (other, "second_")):
        kind = "mariadb" if name in MARIADB else "postgresql"
        urls.append(request.getfixturevalue(f"{second}{kind}"))
    settings = getattr(request.function, "settings", None)
    async with (
        proxied(one, "first", urls[0], settings=settings) as first,
        proxied(other, "second", urls[1], settings=settings) as second_side,
    ):
        for side in (first, second_side):
            empty_tables(side.direct)
        pair = Pair(first, second_side)
        yield pair
        for side in pair.sides:
            await eventually(lambda side=side: not side.observer.in_transaction())
            await check_nothing_is_left(replace(side.flavour, url=side.direct))
        left = pair.prepared()
        for side in pair.sides:  # else they would be in the way of every test to come
            for name in side.prepared():
                end_by_hand(side, name)
        assert left == []


def add(session: Session) -> None:
    add_item(session)


def cut(line: Line) -> None:
    line.cut()


NOTHING: tuple[list[str], list[str]] = ([], [])
ALL = (["one"], ["one"])


async def recover_all(pair: Pair) -> list[str]:
    """Recover until nothing is left; the server may have to hear of a death first."""
    done: list[str] = []

    async def look() -> None:
        while pair.prepared():
            found = await arecover(*pair.databases, min_age=0)
            done.extend(f"{f.database} {f.action}" for f in found if f.action != "left")

    async with asyncio.timeout(10):
        await look()
    return done


# What it does


async def test_both_are_committed(pair: Pair) -> None:
    reply = await pair.post(add, add)

    assert (reply.status, reply.error, reply.complete) == (200, None, True)
    assert pair.seen() == ALL
    assert pair.units[0].outcome is Outcome.COMMITTED
    assert pair.hooks == ["on_commit"]


async def test_all_are_prepared_before_the_first_commits_and_in_order(
    pair: Pair,
) -> None:
    seen: list[str] = []
    for side in pair.sides:
        for words in (*PREPARE, *COMMIT):
            mark = words.decode()
            side.proxy.when(words, lambda side=side, m=mark: seen.append(side.name + m))

    await pair.post(add, add)

    made = [(step.split(" ")[0], "COMMIT" in step) for step in seen]
    kinds = ["PREPARE" if not commit else "COMMIT" for _, commit in made]
    assert kinds == ["PREPARE", "PREPARE", "COMMIT", "COMMIT"]
    assert [step.startswith("first") for step in seen] == [True, False, True, False]


async def test_a_failure_rolls_both_back(pair: Pair) -> None:
    def fail(session: Session) -> None:
        add_item(session)
        raise LookupError

    reply = await pair.post(add, fail)

    assert type(reply.error) is LookupError
    assert pair.seen() == NOTHING
    assert pair.hooks == ["on_rollback"]


@only_pairs(("psycopg", "asyncpg"), ("asyncpg", "psycopg"), ("pymysql", "asyncpg"))
async def test_a_second_that_fails_at_commit_leaves_nothing_in_the_first(
    pair: Pair,
) -> None:
    reply = await pair.post(add, add_orphan)

    assert (reply.status, type(reply.error)) == (500, IntegrityError)
    assert pair.seen() == NOTHING
    assert pair.second.observer.children() == 0
    assert pair.units[0].outcome is Outcome.ROLLED_BACK
    assert pair.hooks == ["on_rollback"]


@only_pairs(("psycopg", "psycopg"), ("asyncpg", "asyncpg"))
async def test_postgresql_alone_pays_for_nothing(pair: Pair) -> None:
    with statements(pair.first.flavour.db.engine) as sent:
        reply = await pair.post(add, None)

    assert reply.status == 200
    assert [sql.split()[0] for sql in sent] == ["BEGIN", "INSERT", "COMMIT"]


@only_pairs(("psycopg", "psycopg"), ("asyncpg", "asyncpg"))
async def test_one_that_has_only_read_is_not_prepared(pair: Pair) -> None:
    with statements(pair.second.flavour.db.engine) as sent:
        reply = await pair.post(names, add)

    assert reply.status == 200
    assert "PREPARE" not in " ".join(sent)
    assert pair.seen() == ([], ["one"])


@only_pairs(("pymysql", "pymysql"), ("asyncmy", "asyncmy"))
async def test_mariadb_alone_is_committed_in_one_phase(pair: Pair) -> None:
    with statements(pair.first.flavour.db.engine) as sent:
        reply = await pair.post(add, None)

    assert reply.status == 200
    assert [sql.split("'")[0].strip() for sql in sent if "XA" in sql] == [
        "XA START",
        "XA END",
        "XA COMMIT",
    ]
    assert sent[-1].endswith("ONE PHASE") or sent[-2].endswith("ONE PHASE")
    assert pair.seen() == (["one"], [])


@only_pairs(("pymysql", "asyncmy"))
async def test_what_is_committed_by_hand_in_the_middle_stays(pair: Pair) -> None:
    def by_hand(session: Session) -> None:
        add_item(session)
        session.commit()
        add_item(session, "two")
        raise LookupError

    await pair.post(by_hand, add)

    assert pair.seen() == (["one"], [])


@only_pairs(("pymysql", "asyncmy"), ("asyncmy", "asyncpg"))
async def test_savepoints_work_in_both(pair: Pair) -> None:
    def part(session: Session) -> None:
        add_item(session)
        with pytest.raises(IntegrityError), session.begin_nested():
            add_item(session)

    assert (await pair.post(part, part)).status == 200
    assert pair.seen() == ALL


async def test_a_second_unit_finds_clean_connections(pair: Pair) -> None:
    app = pair.app(
        lambda s: s.add(Item(name=f"{len(names(s))}")),
        lambda s: s.add(Item(name=f"{len(names(s))}")),
    )

    replies = [await call(app, "POST", "/") for _ in range(4)]

    assert [reply.status for reply in replies] == [200] * 4
    assert pair.seen() == (["0", "1", "2", "3"], ["0", "1", "2", "3"])


# A connection that breaks in the middle


@pytest.mark.parametrize("on_answer", [False, True])
@pytest.mark.parametrize("which", [0, 1])
async def test_a_prepare_that_is_lost_leaves_nothing(
    pair: Pair, which: int, on_answer: bool
) -> None:
    pair.sides[which].trap(PREPARE, cut, on_answer=on_answer)

    reply = await pair.post(add, add)

    assert reply.status == 500
    assert pair.units[0].outcome is Outcome.ROLLED_BACK
    assert pair.prepared() == []
    assert pair.seen() == NOTHING


@pytest.mark.parametrize("on_answer", [False, True])
@pytest.mark.parametrize("which", [0, 1])
async def test_a_commit_that_is_lost_is_sent_again_elsewhere(
    pair: Pair, which: int, on_answer: bool
) -> None:
    pair.sides[which].trap(COMMIT, cut, on_answer=on_answer)

    reply = await pair.post(add, add)

    assert (reply.status, reply.error) == (200, None)
    assert pair.units[0].outcome is Outcome.COMMITTED
    assert pair.seen() == ALL


def with_settings(settings: DatabaseSettings) -> Callable[[Any], Any]:
    def mark(test: Any) -> Any:
        test.settings = settings
        return test

    return mark


def out_of_reach(side: Side) -> Callable[[Line], None]:
    def act(line: Line) -> None:
        side.proxy.refusing = 10**6
        line.cut()

    return act


def back_in_reach(side: Side) -> None:
    side.proxy.refusing = 0


@with_settings(GIVING_UP)
async def test_a_second_out_of_reach_is_committed_by_recovery(pair: Pair) -> None:
    pair.second.trap(COMMIT, out_of_reach(pair.second))

    reply = await pair.post(add, add)

    error = reply.error
    assert isinstance(error, PartialCommitError)
    assert (error.committed, error.unknown) == (("first",), ("second",))
    assert error.rolled_back == ()
    assert error.__cause__ is not None
    assert pair.units[0].outcome is Outcome.PARTIAL
    assert pair.hooks == ["on_unknown"]
    back_in_reach(pair.second)
    assert await recover_all(pair) == ["second committed"]
    assert pair.seen() == ALL


@with_settings(GIVING_UP)
@pytest.mark.parametrize("on_answer", [False, True])
async def test_a_first_out_of_reach_is_unknown_and_recovery_settles_it(
    pair: Pair, on_answer: bool
) -> None:
    pair.first.trap(COMMIT, out_of_reach(pair.first), on_answer=on_answer)

    reply = await pair.post(add, add)

    assert type(reply.error) is CommitUnknownError
    assert "'first', 'second'" in str(reply.error)
    assert pair.units[0].outcome is Outcome.UNKNOWN
    assert pair.hooks == ["on_unknown"]
    back_in_reach(pair.first)
    await recover_all(pair)
    assert pair.seen() == (ALL if on_answer else NOTHING)


@with_settings(GIVING_UP)
@pytest.mark.parametrize("on_answer", [False, True])
async def test_a_prepare_that_nobody_can_settle_is_rolled_back_by_recovery(
    pair: Pair, on_answer: bool
) -> None:
    pair.second.trap(PREPARE, out_of_reach(pair.second), on_answer=on_answer)

    reply = await pair.post(add, add)

    assert type(reply.error) is CommitUnknownError
    assert pair.prepared() != []
    back_in_reach(pair.second)
    done = await recover_all(pair)
    assert done == ["second rolled back"] * on_answer + ["first rolled back"]
    assert pair.seen() == NOTHING


@with_settings(IMPATIENT)
@only_pairs(*SOME)
@pytest.mark.parametrize("words", [PREPARE, COMMIT])
async def test_a_network_that_swallows_is_not_waited_for(
    pair: Pair, words: tuple[bytes, ...]
) -> None:
    pair.second.trap(words, lambda line: None)

    reply = await pair.post(add, add)

    assert reply.status == (200 if words is COMMIT else 500)
    assert pair.prepared() == []
    assert pair.seen() == (ALL if words is COMMIT else NOTHING)


# A process that dies in the middle


SERVED = """
import asyncio, os
from support.asgi import call
from support.flavours import Flavour, kind_of
from support.models import add_item
from support.pairs import Pair, Side

async def main():
    sides = []
    for database in ("first", "second"):
        name, url = os.environ[database].split()
        db = kind_of(name)(url, name=database)
        sides.append(Side(Flavour(name, url, db), None, url))
    await call(Pair(*sides).app(add_item, add_item), "POST", "/")

asyncio.run(main())
"""


async def kill_at(pair: Pair, which: int, words: tuple[bytes, ...]) -> None:
    """Let another process do the work, and kill it before it says *words*."""
    killed = asyncio.Event()

    def kill(line: Line) -> None:
        process.kill()
        killed.set()
        for side in pair.sides:
            side.proxy.swallow()

    pair.sides[which].trap(words, kill)
    served = {s.name: f"{s.flavour.name} {s.flavour.url}" for s in pair.sides}
    paths = os.pathsep.join([str(TESTS), *sys.path])
    process = await create_subprocess_exec(
        *(sys.executable, "-c", SERVED),
        env={**os.environ, "PYTHONPATH": paths, **served},
    )
    async with asyncio.timeout(20):
        await killed.wait()
        await process.wait()
    for side in pair.sides:
        side.proxy.forward()


CRASHES = {
    "before the second PREPARE": (1, PREPARE, ["first rolled back"], NOTHING),
    "before the first COMMIT": (
        0,
        COMMIT,
        ["second rolled back", "first rolled back"],
        NOTHING,
    ),
    "before the second COMMIT": (1, COMMIT, ["second committed"], ALL),
}


@pytest.mark.parametrize("crash", CRASHES)
async def test_what_a_crash_has_left_is_ended_alike_in_both(
    pair: Pair, crash: str
) -> None:
    which, words, done, stored = CRASHES[crash]
    await kill_at(pair, which, words)
    assert len(pair.prepared()) == len(done)

    assert await recover_all(pair) == done

    assert pair.seen() == stored
    assert await arecover(*pair.databases, min_age=0) == []


@pytest.mark.parametrize("crash", CRASHES)
@only_pairs(*SOME)
async def test_two_recoveries_at_once_agree(pair: Pair, crash: str) -> None:
    which, words, done, stored = CRASHES[crash]
    await kill_at(pair, which, words)

    found = await asyncio.gather(recover_all(pair), recover_all(pair))

    assert sorted(found[0] + found[1]) == sorted(done)
    assert pair.seen() == stored


@pytest.mark.parametrize("crash", CRASHES)
@only_pairs(*SOME)
async def test_a_recovery_that_dies_half_way_is_finished_by_the_next(
    pair: Pair, crash: str
) -> None:
    which, words, _, stored = CRASHES[crash]
    await kill_at(pair, which, words)
    left = pair.prepared()
    while len(pair.prepared()) == len(left):
        recovering = _recovering(order_of(pair), 0)
        await drive(recovering, until=lambda: len(pair.prepared()) < len(left))

    await recover_all(pair)

    assert pair.seen() == stored


async def drive(plan: Any, until: Callable[[], bool] = lambda: False) -> Any:
    """Make the steps of a recovery, without waiting; go away *until* something is."""
    result, error = None, None
    while not until():
        try:
            step = plan.throw(error) if error is not None else plan.send(result)
        except StopIteration as stop:
            return stop.value
        result = error = None
        if isinstance(step, _Wait):
            continue
        try:
            result = await on_database(step)
        except Exception as caught:
            error = caught
    plan.close()
    return None


async def on_database(step: Any) -> Any:
    if step.source.is_async:
        return await greenlet_spawn(_call, step)
    return await to_thread.run_sync(_call, step)


async def test_what_was_prepared_between_two_looks_is_left_alone(pair: Pair) -> None:
    await kill_at(pair, 1, PREPARE)
    order = order_of(pair)
    other = str(Branch(order.fingerprint, "0", 1, 1))  # seen in the first look only
    plan = _recovering(order, 60)
    next(plan)
    plan.send([])
    assert type(plan.send([other])) is _Wait

    assert await drive(plan) == []

    assert len(pair.prepared()) == 1
    await recover_all(pair)


async def test_what_depends_on_a_silent_database_is_left(pair: Pair) -> None:
    await kill_at(pair, 0, COMMIT)
    before = pair.prepared()
    pair.second.proxy.refusing = 10**6

    found = await arecover(*pair.databases, min_age=0)

    assert {each.action for each in found} == {"left"}
    assert pair.prepared() == before
    back_in_reach(pair.second)
    await recover_all(pair)
    assert pair.seen() == NOTHING


@only_pairs(("psycopg", "psycopg"), ("psycopg", "pymysql"), ("pymysql", "psycopg"))
async def test_what_others_have_prepared_is_never_touched(pair: Pair) -> None:
    fingerprint = order_of(pair).fingerprint
    theirs = ["somebody", "unitwork", "unitwork-1-2", str(Branch("0", "a", 1, 1))]
    theirs.append(str(Branch(fingerprint, "b", 1, 2)))  # in the wrong database
    for name in theirs:
        prepare_by_hand(pair.first, name)

    found = await arecover(*pair.databases, min_age=0)

    assert [each for each in found if each.database == "first"] == []
    assert set(theirs) <= set(pair.first.prepared())
    for name in theirs:
        await eventually(lambda name=name: end_by_hand(pair.first, name))


def order_of(pair: Pair) -> Order:
    return Order([database._source for database in pair.databases])


def prepare_by_hand(side: Side, name: str) -> None:
    if side.is_mariadb:
        with connect_mariadb(make_url(side.direct)) as line:
            for verb in ("START", "END", "PREPARE"):
                line.query(f"XA {verb} '{name}'")
                if verb == "START":
                    line.query("INSERT INTO item (name) VALUES (UUID())")
        return
    plain = make_url(side.direct).set(drivername="postgresql")
    with psycopg.connect(plain.render_as_string(False), autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute(f"PREPARE TRANSACTION '{name}'")


def end_by_hand(side: Side, name: str) -> bool:
    try:
        if side.is_mariadb:
            side.observer._query(f"XA ROLLBACK '{name}'")
        else:
            plain = make_url(side.direct).set(drivername="postgresql")
            url = plain.render_as_string(False)
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"ROLLBACK PREPARED '{name}'")
    except pymysql.err.OperationalError:  # its connection has yet to end
        return False
    return True


# While the application runs


async def test_the_application_recovers_while_it_runs(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kill_at(pair, 1, COMMIT)
    monkeypatch.setattr(recovery, "MIN_AGE", 0.01)
    life = Life(pair.app(add, add))
    await life.start()

    await eventually(lambda: pair.prepared() == [])

    await life.stop()
    assert pair.seen() == ALL


async def test_an_application_starts_without_its_databases(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "MIN_AGE", 0.01)
    for side in pair.sides:
        side.proxy.refusing = 10**6
    life = Life(pair.app(add, add))

    assert (await life.start())["type"] == "lifespan.startup.complete"

    for side in pair.sides:
        back_in_reach(side)
    await life.stop()


# Where it can't be had


POSTGRESQL = "postgresql+psycopg://nobody@localhost/none"
MYSQL = "mysql+pymysql://nobody@localhost/none"


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ([POSTGRESQL], "twophase=True is for several databases, and db is one"),
        ([POSTGRESQL, "sqlite://"], "database 'd1' can't take part .* sqlite knows"),
        (["sqlite://", POSTGRESQL], "database 'd0' can't take part .* sqlite knows"),
        ([POSTGRESQL, POSTGRESQL, MYSQL], "'d2' is MariaDB, which may be one of two"),
    ],
)
def test_a_middleware_refuses(urls: list[str], message: str) -> None:
    databases = [Database(url, name=f"d{n}") for n, url in enumerate(urls)]

    with pytest.raises(UsageError, match=message):
        DBSessionMiddleware(FastAPI(), databases, twophase=True)


async def test_a_database_whose_engine_comes_late_is_refused_at_its_first_use(
    tmp_path: Path,
) -> None:
    late = AsyncDatabase(
        lambda: create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/late.db")
    )
    other = AsyncDatabase(POSTGRESQL, name="other")
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=[late, other], twophase=True)

    @app.post("/")
    async def endpoint() -> None:
        await (await late.session()).execute(text("SELECT 1"))

    reply = await call(app, "POST", "/")

    assert type(reply.error) is UsageError
    assert "database 'default' can't take part" in str(reply.error)


@pytest.mark.parametrize("min_age", [-1, 1, 30, float("nan")])
def test_a_min_age_within_which_a_commit_may_still_come_is_refused(
    min_age: float,
) -> None:
    databases = [Database(POSTGRESQL, name=name) for name in "ab"]

    with pytest.raises(UsageError, match=r"min_age is .*; give more than 30 seconds"):
        recover(*databases, min_age=min_age)


PREPARES_NOTHING = """
import asyncio, os
from sqlalchemy import make_url, text
from support.asgi import call
from support.flavours import Flavour
from support.pairs import Pair, Side
from unitwork import Database

async def main():
    url = make_url(os.environ["UNITWORK_TEST_POSTGRESQL"])
    url = url.set(drivername="postgresql+psycopg")
    sides = [
        Side(Flavour("psycopg", str(url), Database(url, name=name)), None, str(url))
        for name in ("first", "second")
    ]
    def write(session):
        session.execute(text("SELECT txid_current()"))
    pair = Pair(*sides)
    reply = await call(pair.app(write, write), "POST", "/")
    print(type(reply.error).__name__, reply.error, pair.units[0].outcome)

asyncio.run(main())
"""


def test_a_server_that_prepares_nothing_is_told_by_its_setting() -> None:
    launcher = TESTS.parent / "tools" / "postgres.py"
    said = subprocess.check_output(
        [
            *(sys.executable, launcher, "--max_prepared_transactions=0", "--"),
            *(sys.executable, "-c", PREPARES_NOTHING),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        text=True,
    )

    assert said.startswith("UsageError ")
    assert "Set max_prepared_transactions to at least" in said
    assert said.strip().endswith("Outcome.ROLLED_BACK")


# Streams and messages


@only_pairs(("asyncmy", "asyncmy"), ("asyncmy", "asyncpg"))
async def test_a_transaction_kept_for_a_stream_is_not_mixed_with_a_later_one(
    pair: Pair,
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=pair.databases, twophase=True)

    @app.get("/")
    @transactional(stream=True)
    async def endpoint() -> StreamingResponse:
        first, second = (side.flavour.db.current for side in pair.sides)
        await first.scalars(select(Item))

        async def rows() -> AsyncIterator[str]:
            yield "begun"
            first.add(Item(name="one"))
            await second.run_sync(add)
            yield "ended"

        return StreamingResponse(rows())

    reply = await call(app, "GET", "/")

    assert type(reply.error) is UsageError
    assert "kept open for a stream" in str(reply.error)
    assert pair.seen() == NOTHING


@only_pairs(("asyncpg", "asyncmy"), ("asyncmy", "asyncmy"))
async def test_each_message_of_a_websocket_is_committed_as_one(pair: Pair) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=pair.databases, twophase=True)

    @app.websocket("/")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        for number in range(3):
            for side in pair.sides:
                session = await side.flavour.db.session()
                await session.run_sync(add_item, str(number))
            await websocket.send_text("done")

    async with Socket(app, "/") as socket:
        for _ in range(3):
            await socket.receive()

    assert pair.seen() == (["0", "1", "2"], ["0", "1", "2"])
