"""One MariaDB among several: its files, its process, and what it answers."""

import contextlib
from collections.abc import Sequence
from typing import Any

import pymysql

from .mariadb import SETTINGS, STORAGE
from .server_process import ServerProcess
from .supervisor import Supervisor

FOLLOW = (
    "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='root',"
    " MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos"
)


class MariadbServer(ServerProcess):
    """A MariaDB; *program* and *options* start it."""

    def __init__(
        self, supervisor: Supervisor, name: str, program: str, options: Sequence[object]
    ) -> None:
        super().__init__(supervisor, name)
        self.url = f"mysql://root@127.0.0.1:{self.port}/test"
        self._command: list[object] = [
            *(program, "--no-defaults", *STORAGE, *SETTINGS),
            *(f"--datadir={self.data}", f"--tmpdir={self.data}", f"--port={self.port}"),
            *(f"--socket={self.data}/socket", f"--pid-file={self.data}/pid"),
            *options,
        ]

    def begin_start(self) -> None:
        self._process = self._supervisor.start(*self._command)

    def wait_until_ready(self) -> None:
        self._wait_until(self._answers, "does not answer")

    def follow(self, primary: "MariadbServer") -> None:
        """Be a replica of *primary*, from its first transaction on."""
        self.ask(FOLLOW.format(primary.port))
        self.ask("START SLAVE")

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
