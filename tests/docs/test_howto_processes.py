"""Workers of uvicorn, gunicorn and Granian, started as the page says."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import create_subprocess_exec
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from servers.host import free_port
from support.manual import Page
from support.pages import postgresql
from support.pool import eventually
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
    with listen() as listening, Path("log").open("w") as log:  # noqa: ASYNC230
        number, port = listening.fileno(), listening.getsockname()[1]
        where = {
            "uvicorn": ["--fd", f"{number}"],
            "gunicorn": ["--bind", f"fd://{number}"],
            "granian": ["--port", f"{free_port()}"],
        }
        process = await create_subprocess_exec(
            *command(page, server),
            *where[server],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([".", *sys.path])},
            pass_fds=[number],
            stdout=log,
            stderr=log,
        )
        if server == "granian":  # which takes no socket, and hangs if stopped too soon
            port = int(where[server][1])
            await eventually(lambda: both_started(Path("log")), seconds=30)
        yield port
        process.terminate()
        async with asyncio.timeout(30):
            await process.wait()


def both_started(log: Path) -> bool:
    return log.read_text().count("Started worker") == 2


@pytest.mark.anyio
@pytest.mark.parametrize("server", ["uvicorn", "gunicorn", "granian"])
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
