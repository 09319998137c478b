"""Processes that commit in two databases and are killed: forks of one that is warm.

An interpreter that has imported all of this takes a second of CPU, a fork nearly none.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from typing import Any

from support.asgi import call
from support.flavours import FLAVOURS, SERVERS, Flavour, kind_of
from support.models import add_item
from support.pairs import Pair, Side
from support.servers import TESTS


class Mortal:
    """One process at a time: `start()` it, `kill()` it, and `wait()` for its end."""

    def __init__(self) -> None:
        self._parent: subprocess.Popen[str] | None = None

    def start(self, databases: dict[str, str]) -> None:
        """Commit in *databases*, by name: driver and URL."""
        if self._parent is None:
            self._parent = _start_parent()
        self._ask(json.dumps(databases))
        self._pid = int(self._answer())

    def kill(self) -> None:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> None:
        assert self._answer() == "ended\n"

    def close(self) -> None:
        if self._parent is not None:
            with self._parent:
                pass  # it ends with its standard input

    def _ask(self, line: str) -> None:
        assert self._parent is not None
        assert self._parent.stdin is not None
        print(line, file=self._parent.stdin, flush=True)

    def _answer(self) -> str:
        assert self._parent is not None
        assert self._parent.stdout is not None
        return self._parent.stdout.readline()


def _start_parent() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "support.mortals"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def commit(databases: dict[str, str]) -> None:
    sides = []
    for database, driver_and_url in databases.items():
        name, url = driver_and_url.split()
        db: Any = kind_of(name)(url, name=database)
        proxy: Any = None
        sides.append(Side(Flavour(name, url, db), proxy, url))
    await call(Pair(*sides).app(add_item, add_item), "POST", "/")


def run(line: str) -> None:
    """In the child: what it does before it is killed; it never returns."""
    try:
        asyncio.run(commit(json.loads(line)))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def main() -> None:
    for name in SERVERS:  # imports the drivers
        kind_of(name)(f"{FLAVOURS[name]}://localhost/none")
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            run(line)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main()
