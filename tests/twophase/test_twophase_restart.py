"""Two databases that are committed as one, and a MariaDB is restarted at COMMIT.

Its connections are numbered from the start again: others have the old numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pymysql
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import Session

from servers.mariadb_replication import MariadbReplication
from servers.mariadb_server import MariadbServer
from support.databases import empty_tables
from support.flavours import connect_mariadb
from support.models import add_item, create_tables
from support.pairs import COMMIT, Pair, proxied
from support.proxy import Line
from support.twophase import ALL, add

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> Iterator[MariadbServer]:
    with MariadbReplication(replicas=0) as servers:
        engine = create_engine(make_url(servers.primary_url).set(drivername=_PYMYSQL))
        create_tables(engine)
        engine.dispose()
        while servers.primary.ask(_UPTIME) == "0":  # the time of its start has seconds
            time.sleep(0.02)
        yield servers.primary


_PYMYSQL = "mysql+pymysql"
_UPTIME = """
SELECT variable_value FROM information_schema.global_status
WHERE variable_name = 'UPTIME'
"""


class Restart:
    """Restarts *server*; then others connect, and one gets the thread id *thread*."""

    def __init__(self, server: MariadbServer, others: ExitStack) -> None:
        self._server = server
        self._connect = others.enter_context
        self.thread = 0
        self.others: list[pymysql.Connection[pymysql.cursors.Cursor]] = []

    def add(self, session: Session) -> None:
        add_item(session)
        self.thread = session.scalar(text("SELECT CONNECTION_ID()")) or 0

    def at(self, line: Line) -> None:
        self._server.kill()
        self._server.start()
        while not self.others or self.others[-1].thread_id() < self.thread:
            made = self._connect(connect_mariadb(make_url(self._server.url)))
            self.others.append(made)
        assert self.others[-1].thread_id() == self.thread
        line.cut()


@pytest.mark.parametrize("driver", ["pymysql", "asyncmy"])
@pytest.mark.parametrize("on_answer", [False, True])
@pytest.mark.parametrize("which", [0, 1])
async def test_a_restarted_server_keeps_the_connections_of_others(
    server: MariadbServer, postgresql: str, which: int, on_answer: bool, driver: str
) -> None:
    names, urls = [driver, "asyncpg"], [server.url, postgresql]
    with ExitStack() as others:
        restart = Restart(server, others)
        works = [restart.add, add]
        for each in (names, urls, works) if which else ():
            each.reverse()
        async with (
            proxied(names[0], "first", urls[0]) as first,
            proxied(names[1], "second", urls[1]) as second,
        ):
            empty_tables(postgresql)
            pair = Pair(first, second)
            pair.sides[which].trap(COMMIT, restart.at, on_answer=on_answer)

            reply = await pair.post(*works)

            assert (reply.status, reply.error) == (200, None)
            assert pair.seen() == ALL
            for each in restart.others:
                each.ping(reconnect=False)
