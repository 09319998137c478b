"""The detector of calls that are made while a transaction is open."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import fakeredis
import httpx
import pytest
import redis.asyncio
import requests
import urllib3
from anyio import to_thread
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from support.flavours import Flavour, only
from support.models import names
from support.releasing import outside
from unitwork import OutsideCallWarning, UsageError, current_unit
from unitwork.testing import detect_outside_calls

pytestmark = [pytest.mark.anyio, only("aiosqlite", "asyncpg")]

NOWHERE = "http://127.0.0.1:9/secret?token=7"
HERE = r"tests/release/test_outside_calls\.py:\d+ in "


async def by_httpx() -> None:
    async with httpx.AsyncClient() as client:
        await client.get(NOWHERE)


async def by_aiohttp() -> None:
    async with aiohttp.ClientSession() as client:
        await client.get(NOWHERE)


async def by_redis() -> None:
    await redis.asyncio.Redis(port=9).get("key")


async def by_redis_in_a_test() -> None:
    await fakeredis.FakeAsyncRedis().get("key")


async def by_pipeline() -> None:
    await redis.asyncio.Redis(port=9).pipeline().get("key").execute()


async def by_asyncio() -> None:
    await asyncio.sleep(0.001)


def by_sync_httpx() -> None:
    httpx.get(NOWHERE)


def by_requests() -> None:
    requests.get(NOWHERE, timeout=1)


def by_urllib3() -> None:
    urllib3.PoolManager().request("GET", NOWHERE)


def by_time() -> None:
    time.sleep(0.001)


async def run(call: Callable[[], Any]) -> None:
    if asyncio.iscoroutinefunction(call):
        await call()
    else:
        await to_thread.run_sync(call)


CALLS = {
    by_httpx: r"httpx \(GET to 127\.0\.0\.1\)",
    by_sync_httpx: r"httpx \(GET to 127\.0\.0\.1\)",
    by_aiohttp: r"aiohttp \(GET to 127\.0\.0\.1\)",
    by_requests: r"requests \(GET to 127\.0\.0\.1\)",
    by_urllib3: r"urllib3 \(GET to 127\.0\.0\.1\)",
    by_redis: r"redis \(GET\)",
    by_redis_in_a_test: r"redis \(GET\)",
    by_pipeline: r"redis \(a pipeline\)",
    by_asyncio: r"asyncio\.sleep \(0\.001 seconds\)",
    by_time: r"time\.sleep \(0\.001 seconds\)",
}


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
async def test_raises_if_a_transaction_is_open(flavour: Flavour, call: Any) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        match = f"{CALLS[call]} is called at {HERE}{call.__name__}.* holds a trans"
        with detect_outside_calls("raise"), pytest.raises(UsageError, match=match):
            await run(call)


@pytest.mark.parametrize("call", [by_time, by_asyncio], ids=lambda x: x.__name__)
async def test_accepts_calls_outside(flavour: Flavour, call: Any) -> None:
    with detect_outside_calls("raise") as found:
        await run(call)
        async with flavour.block() as session:
            await run(call)
            await flavour.do(session, names)
            async with outside():
                await run(call)
            current_unit().on_commit(call)

    assert found == []


async def test_finds_the_transaction_of_a_unit_around(flavour: Flavour) -> None:
    async with flavour.block() as session, flavour.block():
        await flavour.do(session, names)
        with detect_outside_calls(), pytest.raises(UsageError, match="holds"):
            await by_asyncio()


async def test_warns_of_each_place_once(flavour: Flavour) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with detect_outside_calls("warn") as found:
                await by_asyncio()
                await by_asyncio()

    assert [each.category for each in caught] == [OutsideCallWarning]
    assert len(found) == 1


async def test_leaves_alone_what_the_baseline_has(
    flavour: Flavour, tmp_path: Path
) -> None:
    baseline = tmp_path / "outside_calls.txt"
    async with flavour.block() as session:
        await flavour.do(session, names)
        with detect_outside_calls("record", baseline=baseline):
            await by_asyncio()
        with detect_outside_calls("raise", baseline=baseline):
            await by_asyncio()
            with pytest.raises(UsageError):
                by_time()

    entry = "tests/release/test_outside_calls.py by_asyncio() asyncio.sleep"
    assert baseline.read_text().splitlines()[1:] == [entry]


async def test_ignores_what_it_is_given_by_name(flavour: Flavour) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        with detect_outside_calls(ignore=["time.sleep"]):
            by_time()


async def test_accepts_calls_of_an_application_in_this_process(
    flavour: Flavour,
) -> None:
    app = FastAPI()
    app.get("/")(lambda: "here")
    transport = httpx.ASGITransport(app)

    async with flavour.block() as session:
        await flavour.do(session, names)
        with detect_outside_calls():
            async with httpx.AsyncClient(transport=transport) as client:
                assert (await client.get("http://test/")).json() == "here"
            assert TestClient(app).get("/").json() == "here"


async def test_the_waits_of_statements_are_none(flavour: Flavour) -> None:
    with detect_outside_calls() as found:
        async with flavour.block() as session:
            await flavour.do(session, lambda s: s.execute(select(1)))

    assert found == []


async def test_puts_everything_back(flavour: Flavour) -> None:
    before = asyncio.sleep, time.sleep, httpx.AsyncClient.send
    with detect_outside_calls():
        assert asyncio.sleep is not before[0]

    assert (asyncio.sleep, time.sleep, httpx.AsyncClient.send) == before


@pytest.mark.parametrize("mode", ["raises", "record"])
async def test_a_mode_that_can_not_work_is_refused(flavour: Flavour, mode: Any) -> None:
    with pytest.raises(UsageError, match="mode is"), detect_outside_calls(mode):
        pass
