"""A PostgreSQL of its own, to be restarted, to crash, and to be stopped."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from anyio import to_thread

from servers.postgresql import INITDB, SETTINGS, find_binaries
from servers.private_server import Place, Recipe, private_server
from support.pool import eventually

# Starts the server again whenever it has ended, until a signal stops it.
FOREVER = """
stop() { kill -CONT $server; kill -QUIT $server; wait $server; exit; }
trap stop TERM QUIT
while :; do "$@" & server=$!; wait $server; done
"""


HELD_UP = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"


class Cluster:
    """The server on *port*, with its files in *data*."""

    def __init__(self, port: int, data: Path) -> None:
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self.struck = 0
        """How many transactions were held up when it was restarted or crashed."""
        self._pid_file = data / "postmaster.pid"

    async def restart(self, *, amid: str) -> None:
        """End all connections and start again, in good order ("fast").

        Strikes while transactions wait to write into the table *amid*.
        """
        before = self._postmaster()
        with closing(self._connect()) as connection:
            await self._hold_up(connection, amid)
            os.kill(before, signal.SIGINT)
            await eventually(lambda: self._postmaster() not in (0, before))
        await eventually(self._is_up)

    async def crash(self, *, amid: str | None = None) -> None:
        """Kill a process that serves a client: all others end, and data recovers."""
        started = "SELECT min(backend_start) FROM pg_stat_activity"
        with closing(self._connect()) as connection:
            before = connection.execute(started).fetchone()
            if amid is not None:
                await self._hold_up(connection, amid)
            os.kill(connection.info.backend_pid, signal.SIGKILL)

        def recovered() -> bool:
            with suppress(psycopg.OperationalError), self._connect() as connection:
                return connection.execute(started).fetchone() != before
            return False

        await eventually(recovered)

    async def _hold_up(self, connection: psycopg.Connection[Any], table: str) -> None:
        """Lock *table* by *connection* until others wait for that lock."""
        lock = f"BEGIN; LOCK {table} IN EXCLUSIVE MODE"
        await to_thread.run_sync(connection.execute, lock)

        def held_up() -> int:
            [(self.struck,)] = connection.execute(HELD_UP).fetchall()
            return self.struck

        await eventually(held_up)

    async def freeze(self, seconds: float) -> None:
        """Stop all its processes for a while, as an overloaded machine does."""
        with self._connect() as connection:
            rows = connection.execute("SELECT pid FROM pg_stat_activity").fetchall()
            ours = connection.info.backend_pid
        processes = [self._postmaster(), *(row[0] for row in rows if row[0] != ours)]
        try:
            for process in processes:
                _signal(process, signal.SIGSTOP)
            await asyncio.sleep(seconds)  # the fault itself
        finally:
            for process in reversed(processes):
                _signal(process, signal.SIGCONT)

    def _postmaster(self) -> int:
        with suppress(OSError, IndexError, ValueError):
            return int(self._pid_file.read_text().split("\n")[0])
        return 0

    def _is_up(self) -> bool:
        with suppress(psycopg.OperationalError), self._connect():
            return True
        return False

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True, connect_timeout=5)


def _signal(process: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start one, and remove it at the end."""
    data: list[Path] = []

    def recipe(place: Place) -> Recipe:
        binaries = find_binaries(place.account, place.home)
        data.append(place.home / "data")
        server = [binaries / "postgres", "-D", data[-1], f"--port={place.port}"]
        return Recipe(
            prepare=[binaries / "initdb", "-D", data[-1], *INITDB],
            serve=["sh", "-c", FOREVER, "forever", *server, *SETTINGS],
            signals="TERM",
            pid_file=data[-1] / "postmaster.pid",
            ready="ready",
        )

    with private_server("PostgreSQL", recipe) as port:
        yield Cluster(port, data[-1])
