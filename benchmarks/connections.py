"""A small pool under requests that wait: who pins its connections, and who does not.

    python tools/postgres.py --max_connections=300 -- python tools/mariadb.py -- \
        python -m benchmarks.connections [--requests 1000] [--wait 10]

Each request reads, waits as if for another service, and writes. All come at once; the
pool has five connections, and SQLAlchemy's time limit of 30 seconds for one. Each
contestant has a process of its own. Those that release their connections run alone;
of the others, which do little but wait, some at a time. Needs a PostgreSQL server,
UNITWORK_TEST_POSTGRESQL, and for MariaDB's drivers UNITWORK_TEST_MARIADB. With --alter,
the table is altered while all requests wait.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, NamedTuple

from anyio import to_thread
from sqlalchemy import create_engine, func, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from unitwork import current_unit

from .contestants import BEFORE, CONTESTANTS, IN_TRANSACTIONS, STATEMENT, Built, Setup
from .crew import Worker, start
from .options import DIALECTS, Options, database
from .worker import Stage
from .workloads import Steps, Workload

MARIADB = {"asyncmy": "mysql+asyncmy", "pymysql": "mysql+pymysql"}
ALTER = {
    "postgresql": "ALTER TABLE waiting ALTER COLUMN number SET NOT NULL",
    "mysql": "ALTER TABLE waiting COMMENT = 'altered'",
}
POOL = {"pool_size": 5, "max_overflow": 0, "pool_timeout": 30}
PATIENCE = 90.0
"""Seconds; a request that is not answered by then counts as such."""
Call = Callable[[], Any]


class Base(DeclarativeBase):
    pass


class Waiting(Base):
    __tablename__ = "waiting"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


def add_routes(built: Built, setup: Setup) -> None:
    call, outside = calls(built.app, is_async=setup.is_async)

    def pinned(session: Any) -> Steps:
        yield from steps(session, call)

    def released(session: Any) -> Steps:
        yield from steps(session, outside)

    def committed(session: Any) -> Steps:
        yield from steps(session, call, commit=True)

    for work in (pinned, released, committed):
        route = f"/{work.__name__}"
        built.app.add_api_route(route, built.wrap(work), methods=["POST"])


def calls(app: Any, *, is_async: bool) -> tuple[Call, Call]:
    """To wait `app.state.wait` seconds, as for another service; and that outside."""

    async def async_call() -> None:
        await asyncio.sleep(app.state.wait)

    async def async_outside() -> None:
        async with current_unit().outside("the other service"):
            await async_call()

    def call() -> None:
        time.sleep(app.state.wait)

    def outside() -> None:
        with current_unit().outside("the other service"):
            call()

    return (async_call, async_outside) if is_async else (call, outside)


def steps(session: Any, call: Call, *, commit: bool = False) -> Steps:
    yield session.execute(select(func.count()).where(Waiting.number == 0))
    if commit:
        yield session.commit()
    yield call()
    session.add(Waiting(number=1))
    yield session.flush()


class Flood(NamedTuple):
    """What came of requests that were sent at once."""

    statuses: Counter[int | str]
    seconds: float
    cpu: float
    altered: float | None

    @property
    def shown(self) -> str:
        served = self.statuses[200]
        others = sum(self.statuses.values()) - served
        altered = "" if self.altered is None else f"{1000 * self.altered:.0f}"
        return (
            f"{served} | {others} | {self.seconds:.2f} | {self.cpu:.2f} | {altered} |"
        )


async def flood(
    stage: Stage, path: str, requests: int, wait: float, *, alter: bool = False
) -> Flood:
    """Send *requests* to *path* at once; wait for all answers."""
    app: Any = stage.app
    load = Workload(path, "", method="POST")
    if not stage.setup.is_async:  # each of them waits in a thread
        to_thread.current_default_thread_limiter().total_tokens = requests + 10
    app.state.wait = 0.0
    await answer(stage, load)  # FastAPI and SQLAlchemy prepare much at the first one
    app.state.wait = wait
    began, cpu = time.perf_counter(), time.process_time()
    tasks = [asyncio.create_task(answer(stage, load)) for _ in range(requests)]
    altered = None
    if alter:
        await asyncio.sleep(wait * 0.8)
        altered = await asyncio.to_thread(alter_table, stage.setup.url)
    await asyncio.wait(tasks, timeout=PATIENCE + wait)
    statuses = Counter(each.result() if each.done() else "none" for each in tasks)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Flood(statuses, seconds, cpu, altered)


async def answer(stage: Stage, load: Workload) -> int:
    try:
        return (await stage.request(load)).status
    except Exception:
        return 500


def alter_table(url: str) -> float:
    """How long it takes, by a connection of its own."""
    with owner(url) as connection:
        began = time.perf_counter()
        connection.exec_driver_sql(ALTER[connection.dialect.name])
        return time.perf_counter() - began


@contextmanager
def owner(url: str, **changes: Any) -> Iterator[Any]:
    """A connection in autocommit mode."""
    plain = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
    made = make_url(url)
    made = made.set(drivername=plain[made.get_backend_name()], **changes)
    engine = create_engine(made, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@contextmanager
def tables(driver: str) -> Iterator[str]:
    """The URL of a database that has the table."""
    if driver in MARIADB:
        server = make_url(os.environ["UNITWORK_TEST_MARIADB"])
        server = server.set(drivername=MARIADB[driver], database="unitwork_waiting")
        url = server.render_as_string(hide_password=False)
        with owner(url, database="") as connection:
            connection.exec_driver_sql("CREATE OR REPLACE DATABASE unitwork_waiting")
            made(url)
            yield url
            connection.exec_driver_sql("DROP DATABASE unitwork_waiting")
    else:
        with database(driver) as url:
            made(url)
            yield url


def made(url: str) -> None:
    with owner(url) as connection:
        Base.metadata.create_all(connection)


class Way(NamedTuple):
    """How a contestant waits: by which of the routes."""

    title: str
    contestant: str
    path: str


RELEASING = [
    Way("unitwork, release='statement'", STATEMENT, "pinned"),
    Way("unitwork, outside()", "unitwork", "released"),
    Way("Depends(get_db), commit() before the call", "depends", "committed"),
]
PINNING = [
    Way(CONTESTANTS[name].title, name, "pinned")
    for name in IN_TRANSACTIONS
    if name not in BEFORE.values()
]


async def measure(given: argparse.Namespace, driver: str, ways: list[Way]) -> None:
    """Run *ways*, alone or some at a time; print a line for each."""
    level = {"isolation_level": "READ COMMITTED"} if driver in MARIADB else {}
    options = Options([], [], [], "full")
    places = asyncio.Semaphore(1 if ways is RELEASING else given.at_a_time)

    async def run(way: Way, worker: Worker) -> None:
        async with places:
            found = await worker.call(
                flood,
                path=way.path,
                requests=given.requests,
                wait=given.wait,
                alter=given.alter,
            )
        print(f"| {driver} | {way.title} | {found.shown}", flush=True)

    async with AsyncExitStack() as stack:
        url = stack.enter_context(tables(driver))
        setup = Setup(driver, url, {**POOL, **level})
        names = {way.contestant: None for way in ways}
        workers = await start(options, names, setup, stack)
        running = [way for way in ways if way.contestant in workers]
        await asyncio.gather(*(run(way, workers[way.contestant]) for way in running))
    for name, why in options.missing.items():
        print(f"| {driver} | {name} | does not take part: {why} |", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--wait", type=float, default=1.0)
    parser.add_argument("--alter", action="store_true", help="alter the table, too")
    parser.add_argument("--at-a-time", type=int, default=3, help="of the pinned")
    parser.add_argument("--drivers", nargs="*", default=[*DIALECTS, *MARIADB])
    parser.add_argument("--only", nargs="*", help="some of the contestants")
    given = parser.parse_args()
    print("| driver | contestant | answered | not | seconds | CPU s | ALTER ms |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for driver in given.drivers:
        for all_of_them in (RELEASING, PINNING):
            ways = [w for w in all_of_them if CONTESTANTS[w.contestant].runs_on(driver)]
            ways = [w for w in ways if w.contestant in (given.only or CONTESTANTS)]
            await measure(given, driver, ways)


if __name__ == "__main__":
    asyncio.run(main())
