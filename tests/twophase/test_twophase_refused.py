"""Where two databases can not be committed as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from support.asgi import call
from support.servers import TESTS
from unitwork import AsyncDatabase, Database, DBSessionMiddleware, UsageError, recover

pytestmark = pytest.mark.anyio

POSTGRESQL = "postgresql+psycopg://nobody@localhost/none"
MYSQL = "mysql+pymysql://nobody@localhost/none"


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ([POSTGRESQL], "twophase=True is for several databases, and db is one"),
        ([POSTGRESQL, "sqlite://"], "database 'd1' can't take part .* sqlite has none"),
        (["sqlite://", POSTGRESQL], "database 'd0' can't take part .* sqlite has none"),
        ([POSTGRESQL, POSTGRESQL, MYSQL], "'d2' is MariaDB, which may be one of two"),
    ],
)
def test_a_middleware_refuses(urls: list[str], message: str) -> None:
    databases = [Database(url, name=f"d{n}") for n, url in enumerate(urls)]

    with pytest.raises(UsageError, match=message):
        DBSessionMiddleware(FastAPI(), databases, twophase=True)


async def test_a_database_whose_engine_comes_late_is_refused_at_its_first_use(
    tmp_path: Path,
) -> None:
    late = AsyncDatabase(
        lambda: create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/late.db")
    )
    other = AsyncDatabase(POSTGRESQL, name="other")
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=[late, other], twophase=True)

    @app.post("/")
    async def endpoint() -> None:
        await (await late.session()).execute(text("SELECT 1"))

    reply = await call(app, "POST", "/")

    assert type(reply.error) is UsageError
    assert "database 'default' can't take part" in str(reply.error)


@pytest.mark.parametrize("min_age", [-1, 1, 30, float("nan")])
def test_a_min_age_within_which_a_commit_may_still_come_is_refused(
    min_age: float,
) -> None:
    databases = [Database(POSTGRESQL, name=name) for name in "ab"]

    with pytest.raises(UsageError, match=r"min_age is .*; give more than 30 seconds"):
        recover(*databases, min_age=min_age)


PREPARES_NOTHING = """
import asyncio, os
from sqlalchemy import make_url, text
from support.asgi import call
from support.flavours import Flavour
from support.pairs import Pair, Side
from unitwork import Database

async def main():
    url = make_url(os.environ["UNITWORK_TEST_POSTGRESQL"])
    url = url.set(drivername="postgresql+psycopg")
    sides = [
        Side(Flavour("psycopg", str(url), Database(url, name=name)), None, str(url))
        for name in ("first", "second")
    ]
    def write(session):
        session.execute(text("SELECT txid_current()"))
    pair = Pair(*sides)
    reply = await call(pair.app(write, write), "POST", "/")
    print(type(reply.error).__name__, reply.error, pair.units[0].outcome)

asyncio.run(main())
"""


def test_a_server_that_prepares_nothing_is_told_by_its_setting() -> None:
    launcher = TESTS.parent / "tools" / "postgres.py"
    said = subprocess.check_output(
        [
            *(sys.executable, launcher, "--max_prepared_transactions=0", "--"),
            *(sys.executable, "-c", PREPARES_NOTHING),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        text=True,
    )

    assert said.startswith("UsageError ")
    assert "Set max_prepared_transactions to at least" in said
    assert said.strip().endswith("Outcome.ROLLED_BACK")
