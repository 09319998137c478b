"""A MariaDB primary and its replicas, to be paused, killed and promoted.

with MariadbReplication(replicas=1) as servers:
    servers.pause(0)
"""

from .host import ServerError
from .mariadb import find_programs, installation
from .mariadb_server import MariadbServer
from .server_group import ServerGroup, start_all

PRIMARY = ("--log-bin=log", "--binlog-format=ROW")
REPLICA = ("--read-only=1",)
KEEP_COMMITTED = "--innodb-flush-log-at-trx-commit=1"
"""Or a server that was killed has lost what it had replayed."""


class MariadbReplication(ServerGroup):
    """A primary and its *replicas*, with global transaction ids."""

    def __init__(self, replicas: int = 1) -> None:
        super().__init__("MariaDB replication", signals="KILL")
        self._count = replicas

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

    def _make(self) -> None:
        server, install = find_programs()
        template = self._supervisor.home / "template"
        self._supervisor.run(*installation(install, template))
        roles: list[tuple[str, tuple[str, ...]]] = [("primary", PRIMARY)]
        roles += [(f"replica{i}", REPLICA) for i in range(self._count)]
        self.primary, *self.replicas = servers = [
            self._server(server, name, number, role)
            for number, (name, role) in enumerate(roles, 1)
        ]
        for each in servers:
            each.copy_from(template)
        start_all(servers)
        for replica in self.replicas:
            replica.follow(self.primary)
        self.wait_caught_up()

    def _server(
        self, program: str, name: str, number: int, role: tuple[str, ...]
    ) -> MariadbServer:
        # The number identifies the server in global transaction ids.
        options = (f"--server-id={number}", "--relay-log=relay", KEEP_COMMITTED, *role)
        return MariadbServer(self._supervisor, name, program, options)
