"""gunicorn --preload: the database was used before the workers were forked."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import create_subprocess_exec
from collections.abc import AsyncIterator

import pytest

from support.flavours import POSTGRESQL, Flavour, Observer, only
from support.servers import TESTS, listen, parse, talk

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn forks"),
]
OPTIONS = ["--preload", "--workers", "2", "--worker-class", "asgi"]


@pytest.fixture
async def port(flavour: Flavour) -> AsyncIterator[int]:
    """The port of two workers, which were forked after the import."""
    listening = listen()
    where = ["--bind", f"fd://{listening.fileno()}"]
    server = await create_subprocess_exec(
        *(sys.executable, "-m", "gunicorn", *OPTIONS, *where, "support.preloaded:app"),
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
            "UNITWORK_SERVED": f"{flavour.name} {flavour.url}",
        },
        pass_fds=[listening.fileno()],
        stderr=asyncio.subprocess.DEVNULL,
    )
    with listening:
        yield listening.getsockname()[1]
    server.terminate()
    async with asyncio.timeout(30):
        await server.wait()


@only(*POSTGRESQL)
async def test_preloaded_workers_store_what_they_confirm(
    flavour: Flavour, port: int, observer: Observer
) -> None:
    requests = (talk(port, "POST", f"/items/{number}") for number in range(40))
    async with asyncio.timeout(60):
        replies = [parse(answer) for answer in await asyncio.gather(*requests)]

    assert set(replies) == {(201, b"true")}
    assert sorted(observer.names()) == sorted(f"item {n}" for n in range(40))
