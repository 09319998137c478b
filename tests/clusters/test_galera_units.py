"""Units on a Galera cluster: conflicts are repeated, another node is used on loss."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from anyio import to_thread
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from servers.galera import Galera
from support.flavours import FLAVOURS, MARIADB, Flavour, kind_of
from support.models import add_item
from unitwork import CommitUnknownError, Kind, RetryPolicy, UsageError, classify

pytestmark = pytest.mark.anyio

each_driver = pytest.mark.parametrize("driver", MARIADB)
NODES = 3
CLIENTS = 6
ENOUGH = 40
"""Increments before a node is killed, and after that."""
PATIENT = RetryPolicy(give_up_after=30.0)
CREATE = "CREATE OR REPLACE TABLE hot (id int PRIMARY KEY, n int) ENGINE=InnoDB"
WRITE = text("UPDATE hot SET n = n + 1 WHERE id = 1")


def database(driver: str, urls: Sequence[str], **options: Any) -> Flavour:
    hosts = [f"{url.host}:{url.port}" for url in map(make_url, urls)]
    url = make_url(urls[0]).set(drivername=FLAVOURS[driver], host=None, port=None)
    url = url.update_query_dict({"host": hosts})
    if driver == "pymysql":
        url = url.update_query_dict({"ssl_disabled": "true"})
    there = url.render_as_string(False)
    return Flavour(driver, there, kind_of(driver)(there, **options))


async def port(flavour: Flavour) -> int:
    query = text("SELECT @@port")
    return int(await flavour.work(lambda session: session.scalar(query)))


class Counter:
    """Clients that increment the same row by several nodes."""

    def __init__(self, driver: str, galera: Galera) -> None:
        urls = galera.urls
        turned = [urls[n:] + urls[:n] for n in range(NODES)]
        self.databases = [database(driver, each) for each in turned]
        self.acknowledged = self.unknown = 0
        self.failures: list[BaseException] = []
        self.stopping = False

    async def client(self, number: int) -> None:
        flavour = self.databases[number % NODES]
        while not self.stopping:
            try:
                await self._increment(flavour)
                self.acknowledged += 1
            except CommitUnknownError:
                self.unknown += 1
            except Exception as error:
                self.failures.append(error)
                return

    async def _increment(self, flavour: Flavour) -> None:
        run, keywords = flavour.db.run, {"attempts": 200, "retry": PATIENT}
        if flavour.is_async:

            async def work(session: Any) -> None:
                await session.run_sync(increment)

            await run(work, **keywords)
        else:
            await to_thread.run_sync(lambda: run(increment, **keywords))

    async def wait_for(self, more: int) -> None:
        wanted = self.acknowledged + more
        while self.acknowledged < wanted and not self.failures:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def increment(session: Session) -> None:
    session.execute(WRITE)


@each_driver
async def test_no_increment_of_a_hot_row_is_lost_though_a_node_is_killed(
    galera: Galera, driver: str
) -> None:
    galera.nodes[0].ask(CREATE)
    galera.nodes[0].ask("INSERT INTO hot VALUES (1, 0)")
    counter = Counter(driver, galera)
    async with asyncio.TaskGroup() as clients:
        for number in range(CLIENTS):
            clients.create_task(counter.client(number))
        await counter.wait_for(ENOUGH)
        await to_thread.run_sync(galera.kill, NODES - 1)
        await counter.wait_for(ENOUGH)
        counter.stopping = True
    for flavour in counter.databases:
        await flavour.dispose()

    stored = int(galera.nodes[0].ask("SELECT n FROM hot"))
    assert counter.failures == []
    assert counter.acknowledged <= stored <= counter.acknowledged + counter.unknown


@each_driver
async def test_another_node_is_used_if_the_first_has_lost_its_quorum(
    galera: Galera, driver: str
) -> None:
    flavour = database(driver, galera.urls, connect_args={"connect_timeout": 1})
    before = await port(flavour)
    galera.stop_quorum(alone=0)

    with pytest.raises(DBAPIError) as caught:
        await flavour.work(add_item)

    found = classify(caught.value)
    assert (found.kind, found.code) == (Kind.RECONNECT, 1047)
    galera.restore_quorum()
    galera.kill(0)
    assert await port(flavour) != before
    await flavour.dispose()


@each_driver
async def test_a_node_that_is_read_only_is_passed_over(
    galera: Galera, driver: str
) -> None:
    flavour = database(driver, galera.urls)
    first = await port(flavour)
    galera.nodes[0].ask("SET GLOBAL read_only = 1")
    try:
        await flavour.dispose()
        assert await port(flavour) != first
    finally:
        galera.nodes[0].ask("SET GLOBAL read_only = 0")
        await flavour.dispose()


@each_driver
async def test_reads_wait_for_what_another_node_has_committed(
    galera: Galera, driver: str
) -> None:
    one = database(driver, galera.urls[:1])
    wait = {"init_command": "SET SESSION wsrep_sync_wait = 1"}
    two = database(driver, galera.urls[1:2], connect_args=wait)
    count = text("SELECT count(*) FROM item")

    for n in range(1, 30):
        await one.work(lambda session, n=n: add_item(session, f"{n}"))
        assert await two.work(lambda session: session.scalar(count)) == n
    await one.dispose()
    await two.dispose()


def test_a_host_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="write host=name:port"):
        kind_of("pymysql")("mysql+pymysql:///shop?host=:3306")
