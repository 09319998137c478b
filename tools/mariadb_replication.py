"""A MariaDB primary and its replicas, to be paused, killed and promoted.

    with MariadbReplication(replicas=1) as servers:
        servers.pause(0)

The server is that of `tools/mariadb.py`.
"""

import sys
from types import TracebackType
from typing import Self

from keeper import Keeper
from mariadb import MISSING, STORAGE, find_binary
from mariadb_server import MariadbServer
from private import MissingError, ServerError


class MariadbReplication:
    """A primary and its *replicas*, with global transaction ids.

    Servers keep their numbers and addresses. Methods return when what they are for has
    happened. They may be called in any thread, by one at a time; they block it.
    """

    def __init__(self, replicas: int = 1) -> None:
        self._keeper = Keeper("MariaDB replication", signals="KILL")
        self._count = replicas

    def __enter__(self) -> Self:
        server, install = find_binary("mariadbd"), find_binary("mariadb-install-db")
        if server is None or install is None:
            raise MissingError(MISSING)
        self._keeper.__enter__()
        try:
            self._make(server, install)
        except BaseException:
            self._keeper.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._keeper.__exit__(kind, error, traceback)

    @property
    def primary_url(self) -> str:
        """The address of the primary."""
        return self.primary.url

    @property
    def replica_urls(self) -> list[str]:
        """The addresses of the replicas."""
        return [replica.url for replica in self.replicas]

    def pause(self, i: int) -> None:
        """Let replica *i* replay nothing from now on; it still receives."""
        self.replicas[i].ask("STOP SLAVE SQL_THREAD")

    def resume(self, i: int) -> None:
        """Let replica *i* replay again."""
        self.replicas[i].ask("START SLAVE SQL_THREAD")

    def promote(self, i: int) -> None:
        """Make replica *i* a primary of its own, which accepts writes."""
        self.replicas[i].ask("STOP SLAVE")
        self.replicas[i].ask("SET GLOBAL read_only = 0")

    def wait_caught_up(self) -> None:
        """Wait until each replica has replayed all that the primary has."""
        written = self.primary.ask("SELECT @@gtid_binlog_pos")
        for replica in self.replicas:
            if replica.ask(f"SELECT MASTER_GTID_WAIT('{written}', 30)") != 0:
                raise ServerError(f"{replica.name} has not caught up")

    def reset(self) -> None:
        """Let all servers run, in their first roles."""
        for replica in self.replicas:
            if not replica.is_running:
                replica.start()
            replica.ask("SET GLOBAL read_only = 1")
            replica.ask("START SLAVE")
        self.wait_caught_up()

    def _make(self, server: str, install: str) -> None:
        keeper = self._keeper
        template = keeper.home / "template"
        keeper.run(
            *(install, "--no-defaults", f"--datadir={template}", *STORAGE),
            *("--auth-root-authentication-method=normal", "--force"),
        )
        names = ["primary", *(f"replica{i}" for i in range(self._count))]
        self.primary, *self.replicas = servers = [
            MariadbServer(keeper, server, template, name, number)
            for number, name in enumerate(names, 1)
        ]
        for each in servers:
            each.begin_start()
        for each in servers:
            each.wait_until_ready()
        for replica in self.replicas:
            replica.follow(self.primary)
        self.wait_caught_up()
