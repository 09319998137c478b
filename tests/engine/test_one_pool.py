"""One guard and one gate for each pool, whatever number of engines share it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from support.engines import make_maker, over
from support.flavours import FEW, Flavour, Observer, everywhere, only
from support.guarding import driver_connection_of, write_behind_the_pool
from support.models import add_item, names
from support.tenants import count_listeners, many_tenants, use
from unitwork import PoolTimeoutError
from unitwork._engine.admission import gate_of
from unitwork._engine.per_pool import PerPool

pytestmark = pytest.mark.anyio


# The guard


@FEW
async def test_an_option_engine_for_each_unit_adds_no_listener(
    flavour: Flavour,
) -> None:
    tenants = many_tenants(flavour)
    await use(tenants, 1)
    before = count_listeners(flavour.sync_engine)

    await use(tenants, 50)

    assert count_listeners(flavour.sync_engine) == before


@FEW
async def test_option_engines_do_not_pile_up_in_memory(flavour: Flavour) -> None:
    tenants = many_tenants(flavour)
    await use(tenants, 150)  # what is kept for a number of engines is kept by now
    gc.collect()
    before = len(gc.get_objects())

    await use(tenants, 400)
    gc.collect()

    assert len(gc.get_objects()) - before < 400


@FEW
async def test_a_pool_is_listened_to_once_after_dispose(flavour: Flavour) -> None:
    tenants = many_tenants(flavour)
    await use(tenants, 1)
    before = count_listeners(flavour.sync_engine)

    await flavour.dispose()
    await use(tenants, 2)

    assert count_listeners(flavour.sync_engine) == before


@everywhere
async def test_an_option_engine_guards_the_pool_that_it_shares(
    flavour: Flavour, observer: Observer
) -> None:
    tenants = many_tenants(flavour)
    put = await driver_connection_of(tenants.db.engine)
    await write_behind_the_pool(put)

    await tenants.work(partial(add_item, name="next"))

    assert observer.names() == ["next"]


def test_two_threads_that_need_a_value_at_once_make_one() -> None:
    made: list[Engine] = []
    second = threading.Event()

    def make(engine: Engine) -> object:
        made.append(engine)
        assert second.wait(10)
        return object()

    engine, values = create_engine("sqlite://"), PerPool(make)
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(values.of, engine)
        two = threads.submit(lambda: (second.set(), values.of(engine))[1])

        assert one.result(10) is two.result(10)
    assert made == [engine]


def test_what_is_kept_for_a_pool_is_freed_with_it() -> None:
    values = PerPool(lambda engine: engine.url)
    values.of(create_engine("sqlite://"))
    gc.collect()

    assert values.values() == []


# The gate


def by_two_databases(flavour: Flavour) -> list[Flavour]:
    engine = flavour.db.engine
    return [over(flavour, engine), over(flavour, engine, name="two")]


def by_option_engines(flavour: Flavour) -> list[Flavour]:
    return [flavour, many_tenants(flavour)]


def by_new_sessionmakers(flavour: Flavour) -> list[Flavour]:
    def source() -> Any:
        return make_maker(flavour, flavour.db.engine)

    return [over(flavour, source)] * 2


WAYS = [by_two_databases, by_option_engines, by_new_sessionmakers]


@only("sqlite3", "psycopg", "pymysql")
@pytest.mark.parametrize("way", WAYS)
async def test_all_that_share_a_pool_wait_at_one_gate(
    flavour: Flavour, way: Callable[[Flavour], list[Flavour]]
) -> None:
    small = flavour.another(pool_size=1, max_overflow=0, pool_timeout=0.05)
    one, two = way(small)

    async with one.block() as session:
        await one.do(session, names)
        waiting = asyncio.create_task(two.work(names), context=Context())
        with pytest.raises(PoolTimeoutError, match="1 units hold them all"):
            await waiting

    assert await two.work(names) == []
    await small.dispose()


def test_the_gate_lasts_as_long_as_the_engine_and_not_only_its_pool() -> None:
    engine = create_engine("sqlite:///:memory:", pool_size=1)
    before = gate_of(engine)
    engine.dispose()

    assert gate_of(engine) is before
    assert gate_of(engine.execution_options(tenant=1)) is before
