"""Under the real trio: one sentence at startup, or at the first request.

In a process of its own: the plug-in of trio for Hypothesis must not be loaded here.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HTTP = {
    "type": "http",
    "method": "GET",
    "path": "/",
    "headers": [],
    "query_string": b"",
}
PROGRAM = """
import sys, trio
from starlette.applications import Starlette
from unitwork import AsyncDatabase, DBSessionMiddleware

app = Starlette()
app.add_middleware(DBSessionMiddleware, db=AsyncDatabase("sqlite+aiosqlite://"))

async def receive():
    return {"type": "lifespan.startup"}

async def send(message):
    print(message)

trio.run(app, eval(sys.argv[1]), receive, send)
"""


@pytest.mark.parametrize("scope", [{"type": "lifespan", "state": {}}, HTTP])
def test_the_error_says_that_it_needs_asyncio(scope: object) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, repr(scope)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    error = run.stderr.strip().splitlines()[-1]
    assert error.startswith("unitwork.errors.UsageError: unitwork runs on asyncio only")
    assert ("lifespan.startup.failed" in run.stdout) is ("lifespan" in str(scope))
