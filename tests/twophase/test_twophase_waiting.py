"""A PREPARE or COMMIT waits in its server for longer than its client does."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import Self

import psycopg
import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.orm import Session

from servers.mariadb_replication import MariadbReplication
from servers.postgresql import postgresql as another_postgresql
from support.databases import empty_tables
from support.flavours import MARIADB, connect_mariadb
from support.models import Child, create_tables
from support.pairs import COMMIT, PREPARE, Pair, Side, proxied
from support.pool import eventually
from support.proxy import Line
from support.twophase import ALL, add, back_in_reach, recover_all
from unitwork import CommitUnknownError, DatabaseSettings, arecover

pytestmark = pytest.mark.anyio

GIVING_UP = DatabaseSettings(commit_timeout=0.3, verify_timeout=0.3)
DRIVERS = ["psycopg", "asyncpg", "pymysql", "asyncmy"]
_POSTGRESQL = """
SELECT query FROM pg_stat_activity
WHERE state = 'active' AND query ~ '^(PREPARE|COMMIT PREPARED)'
"""
_MARIADB = "SELECT id FROM information_schema.processlist WHERE info LIKE 'XA %'"


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[bool, str]]:
    """By whether it is MariaDB; on those of the other tests these would wait, too."""
    with (
        MariadbReplication(replicas=0) as mariadb,
        another_postgresql([]) as variables,
    ):
        urls = {True: mariadb.primary_url, False: variables["UNITWORK_TEST_POSTGRESQL"]}
        for is_mariadb, url in urls.items():
            driver = "mysql+pymysql" if is_mariadb else "postgresql+psycopg"
            engine = create_engine(make_url(url).set(drivername=driver))
            create_tables(engine)
            engine.dispose()
        yield urls


# Reasons to wait


@contextmanager
def backup(url: str) -> Iterator[None]:
    with connect_mariadb(make_url(url)) as lock:
        lock.query("FLUSH TABLES WITH READ LOCK")
        yield


@contextmanager
def standby_out_of_reach(url: str) -> Iterator[None]:
    _replicate_to(url, "nobody")
    yield
    _replicate_to(url, "")


def _replicate_to(url: str, standby: str) -> None:
    name = b"synchronous_standby_names"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(b"ALTER SYSTEM SET %b = '%b'" % (name, standby.encode()))
        connection.execute("SELECT pg_reload_conf()")
        while connection.execute(b"SHOW %b" % name).fetchone() != (standby,):
            time.sleep(0.01)
        connection.execute("CHECKPOINT")  # by the process that puts it in force


@contextmanager
def parent_locked(url: str) -> Iterator[None]:
    """Which the foreign key of a child needs, at PREPARE."""
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO item (id, name) VALUES (1, 'one')")
        connection.commit()
        connection.execute("SELECT 1 FROM item FOR UPDATE")
        yield


def add_child(session: Session) -> None:
    session.add(Child(parent_id=1))
    session.flush()


class Wait:
    """Lets the first of *words* wait in the server, which is out of reach then."""

    def __init__(
        self, side: Side, words: tuple[bytes, ...], reason: AbstractContextManager[None]
    ) -> None:
        self._side = side
        self._words = words
        self._line: Line | None = None
        self._reason = reason
        self._held = ExitStack()
        side.proxy.trap = self

    def sent(self, line: Line, data: bytes) -> bytes:
        if self._line is not None or not any(word in data for word in self._words):
            return data
        self._line = line
        self._held.enter_context(self._reason)
        self._side.proxy.refusing = 10**6
        if not self._side.is_mariadb:
            return data
        line.send_on(data)
        line.hold()  # MariaDB looks whether its client is still connected
        return b""

    def received(self, line: Line, data: bytes) -> bytes:
        return data

    def is_under_way(self) -> bool:
        sql = _MARIADB if self._side.is_mariadb else _POSTGRESQL
        return bool(self._side.observer._query(sql))

    async def has_begun(self) -> None:
        await eventually(self.is_under_way)
        back_in_reach(self._side)

    async def has_ended(self) -> None:
        await eventually(lambda: not self.is_under_way())
        assert self._line is not None
        self._line.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()


@asynccontextmanager
async def paired(
    servers: dict[bool, str], other: str, driver: str, which: int
) -> AsyncIterator[Pair]:
    """One of *driver* on a server of its own, and another one."""
    places = [(driver, servers[driver in MARIADB]), ("psycopg", other)]
    places = places[::-1] if which else places
    async with (
        proxied(places[0][0], "first", places[0][1], settings=GIVING_UP) as first,
        proxied(places[1][0], "second", places[1][1], settings=GIVING_UP) as second,
    ):
        for side in (first, second):
            empty_tables(side.direct)
        yield Pair(first, second)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_nothing_is_rolled_back_while_the_first_commit_waits(
    servers: dict[bool, str], postgresql: str, driver: str
) -> None:
    async with paired(servers, postgresql, driver, 0) as pair:
        reason: Callable[[str], AbstractContextManager[None]]
        reason = backup if driver in MARIADB else standby_out_of_reach
        with Wait(pair.first, COMMIT, reason(servers[driver in MARIADB])) as wait:
            reply = await pair.post(add, add)
            await wait.has_begun()

            found = await arecover(*pair.databases, min_age=0)

        await wait.has_ended()
        await recover_all(pair)
        assert type(reply.error) is CommitUnknownError
        assert [each.action for each in found] == ["left", "left"]
        assert pair.seen() == ALL


@pytest.mark.parametrize("driver", DRIVERS)
async def test_nothing_is_rolled_back_while_a_prepare_waits(
    servers: dict[bool, str], postgresql: str, driver: str
) -> None:
    async with paired(servers, postgresql, driver, 1) as pair:
        is_mariadb = driver in MARIADB
        reason = backup if is_mariadb else parent_locked
        with Wait(pair.second, PREPARE, reason(servers[is_mariadb])) as wait:
            reply = await pair.post(add, add if is_mariadb else add_child)
            await wait.has_begun()

            found = await arecover(*pair.databases, min_age=0)

        await wait.has_ended()
        await recover_all(pair)
        assert type(reply.error) is CommitUnknownError
        assert [each.action for each in found] == ["left"]
        assert pair.first.observer.names() == []
        second = pair.second.observer
        assert (second.names() == []) if is_mariadb else (second.children() == 0)
