"""One PostgreSQL among several: its files, its process, and what it answers."""

import contextlib
import signal
import subprocess
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from .host import ServerError
from .server_process import ServerProcess
from .supervisor import Supervisor

Setting = str | int | bool


class PostgresqlServer(ServerProcess):
    """A PostgreSQL; *binaries* is the folder of its programs."""

    def __init__(self, supervisor: Supervisor, binaries: Path, name: str) -> None:
        super().__init__(supervisor, name)
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._binaries = binaries

    def follow(self, primary: "PostgresqlServer | None") -> None:
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
            self._supervisor.account.take(signal_file)
        self._supervisor.account.take(source)
        if self.is_running:
            self.execute("SELECT pg_reload_conf()")

    def begin_start(self) -> None:
        server = (self._binaries / "postgres", "-D", self.data, f"--port={self.port}")
        self._process = self._supervisor.start(*server)

    def wait_until_ready(self) -> None:
        self._wait_until(self._is_ready, "is not ready")

    def kill(self) -> None:
        """End it at once, as a crash does: without a checkpoint."""
        self._end(signal.SIGQUIT)

    def rewind(self, primary: "PostgresqlServer") -> None:
        """Undo what it has and *primary* has not; it must not run."""
        # Before its checkpoint a server that was just promoted passes for unpromoted.
        primary.execute("CHECKPOINT")
        source = f"host=127.0.0.1 port={primary.port} user=postgres dbname=postgres"
        command = (self._binaries / "pg_rewind", "-D", self.data, "--no-sync")
        self._supervisor.run(*command, f"--source-server={source}")

    def configure(self, **settings: Setting) -> None:
        """Change settings that need no restart."""
        with self.connect() as connection:
            for key, value in settings.items():
                change = sql.SQL("ALTER SYSTEM SET {} = {}")
                parts = sql.Identifier(key), sql.Literal(str(value))
                connection.execute(change.format(*parts))
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
            self._wait_until(
                lambda: connection.execute(sent).fetchone() == (True,), otherwise
            )

    def _is_ready(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            lines = (self.data / "postmaster.pid").read_text().split("\n")
            return lines[0] == str(self._process) and "ready" in lines[-2]
        return False

    def _processes(self) -> list[int]:
        command = ["ps", "-A", "-o", "pid=,ppid="]
        run = subprocess.run(command, capture_output=True, check=True, text=True)
        pairs = (line.split() for line in run.stdout.splitlines())
        children = [int(pid) for pid, parent in pairs if parent == str(self._process)]
        return [self._process, *children] if self.is_running else []
