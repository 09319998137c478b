"""Workers of uvicorn and gunicorn, started as the page says."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import create_subprocess_exec
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from support.manual import Page
from support.pages import postgresql
from support.servers import listen, parse, talk

REQUESTS = 20


@pytest.fixture
def database(page: Page, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with postgresql("asyncpg") as url:
        monkeypatch.setenv("DATABASE_URL", url)
        page.write_files()
        yield url


def command(page: Page, server: str) -> list[str]:
    """The command of the page that starts *server*."""
    [line] = [li for li in page.text.splitlines() if li.startswith(f"$ {server} main")]
    return [sys.executable, "-m", *line.removeprefix("$ ").split()]


@asynccontextmanager
async def served(page: Page, server: str) -> AsyncIterator[int]:
    with listen() as listening:
        number = listening.fileno()
        where = {
            "uvicorn": ["--fd", f"{number}"],
            "gunicorn": ["--bind", f"fd://{number}"],
        }
        process = await create_subprocess_exec(
            *command(page, server),
            *where[server],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([".", *sys.path])},
            pass_fds=[number],
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        yield listening.getsockname()[1]
        process.terminate()
        async with asyncio.timeout(30):
            await process.wait()


@pytest.mark.anyio
@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
async def test_workers_store_what_they_confirm(
    page: Page, database: str, server: str
) -> None:
    main = page.run()
    async with main.db.engine.begin() as connection:
        await connection.run_sync(main.Base.metadata.create_all)
    await main.db.dispose()

    async with served(page, server) as port, asyncio.timeout(60):
        paths = [f"/items/?name={number}" for number in range(REQUESTS)]
        answers = await asyncio.gather(*(talk(port, "POST", path) for path in paths))
        status, names = parse(await talk(port, "GET", "/items/"))

    assert {parse(answer)[0] for answer in answers} == {201}
    assert (status, names.count(b",")) == (200, REQUESTS - 1)


def test_counts_the_connections_rightly(page: Page) -> None:
    db = page.run().db

    assert 2 * db.pool_status().size == 20
    assert "so 20 above" in page.text
