"""One PostgreSQL among several: its files, its process, and what it answers."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from keeper import Keeper
from private import ServerError, free_port

Setting = str | int | bool


class Server:
    """A server with files of its own, whose port stays the same.

    Its methods return when what they are for has happened; they raise `ServerError`
    when it does not happen.
    """

    def __init__(self, keeper: Keeper, binaries: Path, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self.data = keeper.home / name
        self._keeper = keeper
        self._binaries = binaries
        self._process = 0

    def copy_from(self, template: Path) -> None:
        """Take the files of *template* in place of its own; it must not run."""
        self._keeper.run("rm", "-rf", self.data)
        self._keeper.run("cp", "-a", template, self.data)

    def follow(self, primary: "Server | None") -> None:
        """Be a replica of *primary* from the next start on, or at once if it is one.

        With `None` it is a primary from the next start on.
        """
        signal_file, source = self.data / "standby.signal", self.data / "follow.conf"
        if primary is None:
            signal_file.unlink(missing_ok=True)
            source.write_text("")
        else:
            signal_file.touch()
            where = f"host=127.0.0.1 port={primary.port} user=postgres"
            name = f"application_name={self.name}"
            source.write_text(f"primary_conninfo = '{where} {name}'\n")
            self._keeper.account.take(signal_file)
        self._keeper.account.take(source)
        if self.is_running:
            self.execute("SELECT pg_reload_conf()")

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        self.begin_start()
        self.wait_until_ready()

    def begin_start(self) -> None:
        """Start it; several start side by side."""
        server = (self._binaries / "postgres", "-D", self.data, f"--port={self.port}")
        self._process = self._keeper.start(*server)

    def wait_until_ready(self) -> None:
        """Wait until it accepts connections."""
        self._until(self._is_ready, "is not ready")

    @property
    def is_running(self) -> bool:
        """Whether it was started and not killed since."""
        return self._process != 0

    def kill(self) -> None:
        """End it at once, as a crash does: without a checkpoint."""
        if self.is_running:
            self.thaw()
            os.kill(self._process, signal.SIGQUIT)
            self._keeper.wait(self._process)
            self._process = 0

    def freeze(self) -> None:
        """Stop all its processes, as a host does that hangs: connections stay open."""
        for process in self._processes():
            _signal(process, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server continue."""
        for process in reversed(self._processes()):
            _signal(process, signal.SIGCONT)

    def rewind(self, primary: "Server") -> None:
        """Undo what it has and *primary* has not; it must not run."""
        # Before its checkpoint a server that was just promoted passes for unpromoted.
        primary.execute("CHECKPOINT")
        source = f"host=127.0.0.1 port={primary.port} user=postgres dbname=postgres"
        command = (self._binaries / "pg_rewind", "-D", self.data, "--no-sync")
        self._keeper.run(*command, f"--source-server={source}")

    def configure(self, **settings: Setting) -> None:
        """Change settings that need no restart."""
        with self.connect() as connection:
            for key, value in settings.items():
                change = sql.SQL("ALTER SYSTEM SET {} = {}")
                words = sql.Identifier(key), sql.Literal(str(value))
                connection.execute(change.format(*words))
            connection.execute("SELECT pg_reload_conf()")
        for key, value in settings.items():
            query = f"SELECT setting = '{value}' OR current_setting(name) = '{value}'"
            in_force = f"{query} FROM pg_settings WHERE name = '{key}'"
            self.wait_for(in_force, f"{key} is not {value}")

    def unconfigure(self) -> None:
        """Take back what `configure` changed."""
        self.execute("ALTER SYSTEM RESET ALL")
        self.execute("SELECT pg_reload_conf()")

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True, connect_timeout=10)

    def execute(self, statement: str) -> None:
        with self.connect() as connection:
            connection.execute(statement.encode())

    def ask(self, query: str) -> Any:
        """The one value that *query* gives, on a connection of its own."""
        with self.connect() as connection:
            row = connection.execute(query.encode()).fetchone()
        if row is None:
            raise ServerError(f"{query} gave no row")
        return row[0]

    def wait_for(self, query: str, otherwise: str) -> None:
        """Wait until *query* gives true; else raise `ServerError`, with *otherwise*."""
        with self.connect() as connection:
            sent = query.encode()
            self._until(
                lambda: connection.execute(sent).fetchone() == (True,), otherwise
            )

    def _until(self, true: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + 60
        while not true():
            if time.monotonic() > deadline:
                log = self._keeper.log()
                raise ServerError(f"{self.name} {otherwise} after 60 seconds:\n{log}")
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        if not self._keeper.is_running(self._process):
            self._process = 0
            raise ServerError(f"{self.name} did not start:\n{self._keeper.log()}")
        with contextlib.suppress(FileNotFoundError):
            lines = (self.data / "postmaster.pid").read_text().split("\n")
            return lines[0] == str(self._process) and "ready" in lines[-2]
        return False

    def _processes(self) -> list[int]:
        """The server's own process first, then those that it has started."""
        command = ["ps", "-A", "-o", "pid=,ppid="]
        run = subprocess.run(command, capture_output=True, check=True, text=True)
        pairs = (line.split() for line in run.stdout.splitlines())
        children = [int(pid) for pid, parent in pairs if parent == str(self._process)]
        return [self._process, *children] if self.is_running else []


def _signal(process: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)
