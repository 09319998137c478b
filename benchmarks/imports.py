"""How long `import unitwork` takes, against the parts of SQLAlchemy that it needs."""

import sys
import time
from asyncio import create_subprocess_exec as start
from typing import Any

from .options import Options

COMPILED = "import sys; sys.dont_write_bytecode = False"  # as what pip has installed
PARTS = "sqlalchemy.ext.asyncio, sqlalchemy.orm"


async def measure(options: Options) -> list[dict[str, Any]]:
    """Start Python in turns; the ratio of the shortest, which nothing disturbed."""
    names = [PARTS, "unitwork"] + ["before"] * bool(options.before)
    took: dict[str, list[float]] = {name: [] for name in names}
    for name in names * (options.rounds(60) + 1):
        code = f"{COMPILED}; import {PARTS if name == PARTS else 'unitwork'}"
        path = f"{options.before}:" * (name == "before") + ":".join(sys.path)
        begin = time.perf_counter()
        await (await start(sys.executable, "-c", code, env={"PYTHONPATH": path})).wait()
        took[name].append(time.perf_counter() - begin)
    ratio = {name: min(each) / min(took[PARTS]) for name, each in took.items()}
    return [{"contestant": n, "case": "ratio", "value": r} for n, r in ratio.items()]
