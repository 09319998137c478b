"""P5, P7 when the server itself goes: under load, no client is told a lie."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from faults.cluster import Cluster, cluster
from soak.generate import FAILURES, OTHERS, SURROUNDINGS, WRITES, Generator
from soak.run import Run
from soak.tables import Row
from support.flavours import POSTGRESQL
from unitwork import CommitUnknownError
from unitwork._transaction.commit_status import TransactionStatus

PROGRAMS = 240
WHEN = 60
SEED = 1
ROWS = Row.__tablename__


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with cluster() as server:
        yield server


def check_no_lie(
    server: Cluster, driver: str, happens: Callable[[], Awaitable[Any]]
) -> None:
    server.struck = 0
    run = Run(generator(driver), server.url, happenings={WHEN: happens})

    report = run.go(range(PROGRAMS))

    wrong = [(each.what, each.story, str(each.program)) for each in report.violations]
    assert wrong == []
    assert report.reported["success"] > PROGRAMS / 4


def generator(driver: str) -> Generator:
    """Of requests that would all succeed, but for their status."""
    kinds = {*WRITES, *OTHERS, *FAILURES, *SURROUNDINGS}
    return Generator(SEED, driver, frozenset(kinds - {"add_flush", "insert", "read"}))


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_a_restart_of_the_server(server: Cluster, driver: str) -> None:
    check_no_lie(server, driver, partial(server.restart, amid=ROWS))

    assert server.struck > 0


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_a_crash_of_the_server(server: Cluster, driver: str) -> None:
    check_no_lie(server, driver, partial(server.crash, amid=ROWS))

    assert server.struck > 0


@pytest.mark.anyio
async def test_a_number_that_a_crash_has_lost_is_soon_that_of_another_transaction(
    server: Cluster,
) -> None:
    status = TransactionStatus()
    url = make_url(server.url).set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as lost:
        lost.execute(NUMBER)
        mark = status.before_commit(lost)
        assert mark is not None
        await server.crash()
        lost.invalidate()

    with engine.connect() as after:
        number = 0
        while number < mark.txid:
            number = after.scalar(NUMBER) or 0
            after.commit()
        status_then = after.scalar(text("SELECT txid_status(:n)"), {"n": mark.txid})
        assert (number, status_then) == (mark.txid, "committed")
        with pytest.raises(CommitUnknownError):
            status.committed(after, mark)


NUMBER = text("SELECT txid_current()")


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_a_server_that_freezes_for_longer_than_commit_may_take(
    server: Cluster, driver: str
) -> None:
    check_no_lie(server, driver, partial(server.freeze, 1.5))
