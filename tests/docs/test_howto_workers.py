"""The real Celery, taskiq and arq: jobs are enqueued after COMMIT."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any
from unittest.mock import AsyncMock

import pytest
from arq import ArqRedis
from arq.worker import Worker
from celery.contrib.testing.worker import start_worker
from celery.signals import task_success
from fakeredis import FakeAsyncRedis
from fastapi.testclient import TestClient

from support.manual import Page
from unitwork.testing import CommitFault, commit_faults


@pytest.fixture
def main(page: Page) -> Iterator[Any]:
    main = page.run()
    main.Base.metadata.create_all(main.db.engine)
    yield main
    main.db.dispose()


def status(main: Any, order_id: int = 1) -> str | None:
    with main.db.transaction() as session:
        order = session.get(main.Order, order_id)
        return None if order is None else order.status


@contextmanager
def celery_worker(main: Any) -> Iterator[Event]:
    """Run a worker in a thread; the event says that a job has succeeded."""
    done = Event()

    def note(**_: object) -> None:
        done.set()

    main.celery.conf.broker_transport_options = {"polling_interval": 0.01}
    task_success.connect(note)
    with start_worker(main.celery, pool="solo", perform_ping_check=False):
        yield done
    task_success.disconnect(note)


def test_celery_finds_the_row_of_the_request(main: Any) -> None:
    with celery_worker(main) as done, TestClient(main.app) as client:
        assert client.post("/orders/").status_code == 201
        assert done.wait(20)

    assert status(main) == "packed"


def test_celery_gets_no_job_for_a_row_that_is_rolled_back(
    main: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueued: list[int] = []
    monkeypatch.setattr(main.pack, "delay", enqueued.append)

    with TestClient(main.app, raise_server_exceptions=False) as client:
        with commit_faults(main.db, CommitFault.ROLLED_BACK):
            client.post("/orders/")
        client.post("/orders/")

    assert enqueued == [1]


async def in_unit(main: Any, order: Any, *args: Any) -> None:
    async with main.async_db.transaction() as session:
        session.add(main.Order(id=1))
        await order(*args, 1)


async def taskiq(main: Any) -> None:
    await main.broker.startup()
    await in_unit(main, main.order_shipping)
    await main.broker.wait_all()
    await main.broker.shutdown()
    await main.async_db.dispose()


async def arq(main: Any) -> None:
    redis = ArqRedis(connection_pool=FakeAsyncRedis().connection_pool)
    await in_unit(main, main.order_closing, redis)
    functions = main.WorkerSettings.functions
    worker = Worker(functions, redis_pool=redis, burst=True, handle_signals=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("arq.worker.log_redis_info", AsyncMock())  # fakeredis has none
        await worker.main()
    await redis.aclose()
    await main.async_db.dispose()


@pytest.mark.parametrize(("queue", "expected"), [(taskiq, "shipped"), (arq, "closed")])
def test_async_queues_find_the_row(main: Any, queue: Any, expected: str) -> None:
    asyncio.run(queue(main))

    assert status(main) == expected
