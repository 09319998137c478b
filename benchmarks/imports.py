"""How long `import unitwork` takes, against the parts of SQLAlchemy that it needs."""

import os
import sys
import time
from asyncio import create_subprocess_exec as exec
from typing import Any

from .options import Options

COMPILED = "import sys; sys.dont_write_bytecode = False"  # as what pip has installed
PARTS = f"{COMPILED}; import sqlalchemy.ext.asyncio, sqlalchemy.orm"
OURS = f"{COMPILED}; import unitwork"


async def measure(options: Options) -> list[dict[str, Any]]:
    """Start Python in turns; the ratio of the shortest, which nothing disturbed."""
    folders = {"parts": "", "unitwork": ""}
    if options.before:
        folders["before"] = options.before
    took: dict[str, list[float]] = {name: [] for name in folders}
    for name in [*folders] * (options.rounds(60) + 1):
        command = [sys.executable, "-c", PARTS if name == "parts" else OURS]
        path = f"{folders[name]}:{os.environ.get('PYTHONPATH', '')}"
        start = time.perf_counter()
        await (await exec(*command, env={**os.environ, "PYTHONPATH": path})).wait()
        took[name].append(time.perf_counter() - start)
    found = {name: min(each) / min(took["parts"]) for name, each in took.items()}
    return [{"contestant": n, "case": "ratio", "value": r} for n, r in found.items()]
