"""One server of a MariaDB replication: its files, its process, and what it answers."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import pymysql

from keeper import Keeper
from mariadb import SETTINGS, STORAGE
from private import ServerError, free_port

FOLLOW = (
    "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='root',"
    " MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos"
)

KEEP_COMMITTED = "--innodb-flush-log-at-trx-commit=1"
"""Or a server that was killed has lost what it had replayed."""
READ_ONLY = ("--read-only=1",)


class MariadbServer:
    """A server with files of its own, whose port stays the same.

    *number* identifies it in global transaction ids; the first is the primary.
    Methods return when what they are for has happened; they raise `ServerError` when it
    does not happen.
    """

    def __init__(
        self, keeper: Keeper, binary: str, template: Path, name: str, number: int
    ) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"mysql://root@127.0.0.1:{self.port}/test"
        self._keeper = keeper
        self._process = 0
        data = keeper.home / name
        keeper.run("cp", "-a", template, data)
        self._command: list[object] = [
            *(binary, "--no-defaults", *STORAGE, *SETTINGS),
            *(f"--datadir={data}", f"--tmpdir={data}", f"--port={self.port}"),
            *(f"--socket={data}/socket", f"--pid-file={data}/pid"),
            *(f"--server-id={number}", "--relay-log=relay", KEEP_COMMITTED),
            *(("--log-bin=log", "--binlog-format=ROW") if number == 1 else READ_ONLY),
        ]

    def begin_start(self) -> None:
        """Start it; several start side by side."""
        self._process = self._keeper.start(*self._command)

    def start(self) -> None:
        """Start it, and wait until it can be used."""
        self.begin_start()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + 60
        while not self._answers():
            if not self._keeper.is_running(self._process):
                raise ServerError(f"{self.name} has ended:\n{self._keeper.log()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} does not answer after 60 seconds")
            time.sleep(0.05)

    def follow(self, primary: "MariadbServer") -> None:
        """Be a replica of *primary*, from its first transaction on."""
        self.ask(FOLLOW.format(primary.port))
        self.ask("START SLAVE")

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not killed since."""
        return self._process != 0

    def kill(self) -> None:
        """End it at once, as a crash does."""
        os.kill(self._process, signal.SIGKILL)
        self._keeper.wait(self._process)
        self._process = 0

    def ask(self, statement: str) -> Any:
        """Execute *statement* by itself; gives its first value, if there is one."""
        connection = pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user="root",
            database="test",
            autocommit=True,
            ssl_disabled=True,
            read_timeout=40,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone()
        return row and row[0]

    def _answers(self) -> bool:
        with contextlib.suppress(pymysql.err.MySQLError):
            return bool(self.ask("SELECT 1"))
        return False
