"""P5, P7 when the server itself goes: under load, nobody is lied to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from faults.cluster import Cluster, cluster
from faults.history import Report, Told
from faults.plan import Plan
from faults.run import Run
from support.flavours import POSTGRESQL
from unitwork._engine.commit_status import TransactionStatus

pytestmark = pytest.mark.anyio

REQUESTS = 240
WHEN = 60
SEED = 1


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with cluster() as server:
        yield server


async def check_nobody_is_lied_to(
    server: Cluster, driver: str, happens: Callable[[], Awaitable[Any]]
) -> Report:
    plan = Plan(SEED, REQUESTS, rate=0.0)
    run = Run(driver, server.url, plan, happenings={WHEN: happens})

    report = await run.go()

    assert report.wrong == []
    assert report.told.total() == REQUESTS
    return report


def check_somebody_was_refused(report: Report) -> None:
    paths = Counter(
        Plan(SEED, REQUESTS, rate=0.0).case(n).path for n in range(REQUESTS)
    )
    assert report.told[Told.REFUSED] > paths["refuse"]


@pytest.mark.parametrize("driver", POSTGRESQL)
async def test_a_restart_of_the_server(server: Cluster, driver: str) -> None:
    report = await check_nobody_is_lied_to(server, driver, server.restart)

    check_somebody_was_refused(report)


@pytest.mark.parametrize("driver", POSTGRESQL)
async def test_a_crash_of_the_server(server: Cluster, driver: str) -> None:
    report = await check_nobody_is_lied_to(server, driver, server.crash)

    check_somebody_was_refused(report)


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
        told = after.scalar(text("SELECT txid_status(:n)"), {"n": mark.txid})
        verdict = status.committed(after, mark)

    assert (number, told, verdict) == (mark.txid, "committed", None)


NUMBER = text("SELECT txid_current()")


@pytest.mark.parametrize("driver", POSTGRESQL)
async def test_a_server_that_freezes_for_longer_than_commit_may_take(
    server: Cluster, driver: str
) -> None:
    await check_nobody_is_lied_to(server, driver, partial(server.freeze, 1.0))
