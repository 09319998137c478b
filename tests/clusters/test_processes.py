"""Several processes: each has a pool of its own, and the server sees the sum."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, create_subprocess_exec
from collections.abc import AsyncIterator

import pytest

from support.flavours import Flavour, Observer, only
from support.servers import TESTS, listen, parse, talk

pytestmark = pytest.mark.anyio

POOL = 3  # of each, see `support.pooled`
WORKERS = 2
REQUESTS = 60


@pytest.fixture
async def port(flavour: Flavour) -> AsyncIterator[int]:
    with listen() as listening:
        number = listening.fileno()
        server = await create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "support.pooled:app"),
            *("--workers", str(WORKERS), "--fd", str(number)),
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
                "UNITWORK_SERVED": flavour.url,
            },
            pass_fds=[number],
            stderr=DEVNULL,
        )
        yield listening.getsockname()[1]
        server.terminate()
        await server.wait()


@only("asyncpg")
async def test_the_server_sees_no_more_connections_than_all_pools_have(
    flavour: Flavour, port: int, observer: Observer
) -> None:
    requests = (talk(port, "POST", f"/items/{number}") for number in range(REQUESTS))
    async with asyncio.timeout(60):
        answers = [parse(answer) for answer in await asyncio.gather(*requests)]
    in_use, open_in_all = zip(*(json.loads(body) for _, body in answers), strict=True)

    assert {status for status, _ in answers} == {201}
    assert len(observer.names()) == REQUESTS
    assert max(in_use) == POOL
    assert max(open_in_all) <= WORKERS * POOL
