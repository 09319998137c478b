"""How long an import takes, in a fresh process each time."""

import asyncio
import os
import random
import sys
from asyncio.subprocess import DEVNULL, PIPE, create_subprocess_exec
from typing import Any

from .crew import absent, python_of
from .numbers import against, spread
from .options import Options
from .progress import Progress
from .registry import CONTESTANTS

PARTS = "import sqlalchemy.ext.asyncio, sqlalchemy.orm, anyio"
"""What unitwork needs of others."""
STATEMENTS = {
    "parts": PARTS,
    "unitwork": "import unitwork",
    "fastapi": f"{PARTS}, fastapi",
    "unitwork_fastapi": "import unitwork.fastapi",
    "fastapi_sqlalchemy": "import fastapi_sqlalchemy",
    "fastapi_async_sqlalchemy": "import fastapi_async_sqlalchemy",
    "fastapi_sqla": "import fastapi_sqla",
    "fastsqla": "import fastsqla",
    "advanced_alchemy": "import advanced_alchemy.extensions.fastapi",
    "context_async_sqlalchemy": "import context_async_sqlalchemy.fastapi_utils",
    "fastapi_toolsets": "import fastapi_toolsets.db",
}
ALWAYS = ("parts", "unitwork", "fastapi", "unitwork_fastapi")
CACHED = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
"""What pip installs is compiled already, and so shall be what we run from src/."""
TIMED = """
import time
wall, cpu = time.perf_counter(), time.process_time()
{}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


async def measure(options: Options) -> dict[str, Any]:
    rounds = options.rounds(30)
    who = {
        name: statement
        for name, statement in STATEMENTS.items()
        if name in ALWAYS or name in options.contestants
    }
    missing: dict[str, str] = {}
    cpu: dict[str, list[float]] = {name: [] for name in who}
    progress = Progress("imports", len(who) * (rounds + 1))
    for number in range(rounds + 1):
        for name in random.sample(list(who), len(who)):
            progress.step(name)
            took = await imported(name, who[name])
            if isinstance(took, str):
                missing[name] = took
            elif number:  # the first writes the byte code
                cpu[name].append(took)
    progress.end()
    results = [
        {
            "statement": who[name],
            "ms": spread([seconds * 1000 for seconds in found]),
            "ratio": against(found, cpu["parts"]),
        }
        for name, found in cpu.items()
        if len(found) == rounds
    ]
    return {"results": results, "missing": missing}


async def imported(name: str, statement: str) -> float | str:
    """The CPU seconds that *statement* takes; else what went wrong."""
    contestant = CONTESTANTS.get(name)
    if contestant is not None and (reason := absent(contestant)) is not None:
        return reason
    python = str(python_of(contestant)) if contestant is not None else sys.executable
    process = await create_subprocess_exec(
        *(python, "-c", TIMED.format(statement)),
        stdout=PIPE,
        stderr=DEVNULL,
        env=CACHED,
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    if process.returncode != 0:
        return f"`{statement}` fails"
    return float(out.split()[1])
