"""A PostgreSQL primary and its streaming replicas, to be paused, killed and promoted.

with Replication(replicas=2) as replication:
    replication.pause(0)
"""

import contextlib
from collections.abc import Iterator, Sequence
from types import TracebackType

from .postgresql import INITDB, find_binaries
from .postgresql import SETTINGS as SINGLE
from .postgresql_server import PostgresqlServer, Setting
from .server_group import ServerGroup, start_all

FIRST_PRIMARY = -1
"""The number of the server that was the primary at first."""

# They stand in a file: pg_rewind starts the server by itself. What is kept of the WAL
# lets a replica continue that was away.
SETTINGS: dict[str, Setting] = {
    **dict(option.removeprefix("--").split("=", 1) for option in SINGLE),
    "wal_keep_size": "512MB",
    "wal_log_hints": True,
    "wal_retrieve_retry_interval": "100ms",
}


class Replication(ServerGroup):
    """A primary and its *replicas*; *settings* are those of all servers.

    Replica *i* is `replica_urls[i]`, also after it was promoted, and `FIRST_PRIMARY` is
    the server that was the primary at first.
    """

    def __init__(self, replicas: int = 1, **settings: Setting) -> None:
        super().__init__("Replication", signals="TERM QUIT")
        self._count = replicas
        self._settings = SETTINGS | settings
        self._is_rebuilt = False
        self.primary: PostgresqlServer

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in self.servers:
            server.thaw()
        super().__exit__(kind, error, traceback)

    @property
    def primary_url(self) -> str:
        """The address of the server that is the primary now."""
        return self.primary.url

    @property
    def replica_urls(self) -> list[str]:
        """The addresses of the servers that were replicas at first."""
        return [server.url for server in self.servers[:-1]]

    @property
    def first_primary_url(self) -> str:
        """The address of the server that was the primary at first."""
        return self.servers[FIRST_PRIMARY].url

    def pause(self, i: int) -> None:
        """Let replica *i* replay nothing from now on; it still receives."""
        replica = self.servers[i]
        replica.execute("SELECT pg_wal_replay_pause()")
        state = "SELECT pg_get_wal_replay_pause_state() = 'paused'"
        replica.wait_for(state, "is not paused")

    def resume(self, i: int) -> None:
        """Let replica *i* replay again."""
        self.servers[i].execute("SELECT pg_wal_replay_resume()")

    def set_delay(self, i: int, ms: int) -> None:
        """Let replica *i* replay each COMMIT *ms* milliseconds after it was made."""
        self.configure(i, recovery_min_apply_delay=ms)

    def configure(self, i: int, **settings: Setting) -> None:
        """Change settings of server *i* that need no restart."""
        self.servers[i].configure(**settings)

    def set_synchronous(self, on: bool, *, commit: str = "on") -> None:
        """Let COMMIT wait for one replica, on each server that is or becomes primary.

        *commit* is `synchronous_commit`: "remote_apply" waits for the replay, too.
        """
        names = "*" if on else ""
        for server in self._running():
            server.configure(synchronous_standby_names=names, synchronous_commit=commit)
        if on:
            synchronous = "FROM pg_stat_replication WHERE sync_state = 'sync'"
            self.primary.wait_for(
                f"SELECT count(*) > 0 {synchronous}", "has no replica"
            )

    def kill(self, i: int) -> None:
        """End server *i* at once, as a crash does."""
        self._is_rebuilt = False
        self.servers[i].kill()

    def start(self, i: int) -> None:
        """Start server *i* again, in its former role."""
        self.servers[i].start()

    def freeze(self, i: int) -> None:
        """Stop the processes of server *i*: it is reached, and never answers."""
        self.servers[i].freeze()

    def thaw(self, i: int) -> None:
        """Let server *i* continue after `freeze()`."""
        self.servers[i].thaw()

    def kill_primary(self) -> None:
        """End the primary at once, as a crash does."""
        self.kill(self.servers.index(self.primary))

    def promote(self, i: int) -> None:
        """Make replica *i* the primary, and let the other replicas follow it.

        The former primary stays what it is: kill it before, or have two primaries.
        """
        former, self.primary = self.primary, self.servers[i]
        self._is_rebuilt = False
        self.primary.execute("SELECT pg_promote()")
        for server in self._running():
            if server not in (former, self.primary):
                server.follow(self.primary)

    def fail_over(self) -> None:
        """Kill the primary and promote the replica that has received most."""
        self.kill_primary()
        received = "SELECT pg_last_wal_receive_lsn() - '0/0'::pg_lsn"
        best = max(self._running(), key=lambda server: int(server.ask(received)))
        self.promote(self.servers.index(best))

    def rejoin(self) -> None:
        """Let each server that is not running, or not a replica, follow the primary.

        What it has and the primary has not is undone by `pg_rewind`.
        """
        for server in self.servers:
            is_replica = server.is_running and server.ask("SELECT pg_is_in_recovery()")
            if server is not self.primary and not is_replica:
                server.kill()
                server.rewind(self.primary)
                server.follow(self.primary)
                server.start()

    def wait_caught_up(self) -> None:
        """Wait until each running replica has replayed all that the primary has."""
        written = self.primary.ask("SELECT pg_current_wal_insert_lsn()")
        replayed = f"SELECT pg_last_wal_replay_lsn() >= '{written}'"
        for server in self._running():
            if server is not self.primary:
                server.wait_for(replayed, "has not caught up")

    def reset(self) -> bool:
        """Give all servers their first roles and settings again.

        Returns whether they were made anew, without any table: after a server was
        killed or promoted.
        """
        for server in self.servers:
            server.thaw()
        if not self._is_rebuilt:
            self._build()
            return True
        for server in self.servers:
            server.unconfigure()
        for i in range(self._count):
            self.resume(i)
        self.wait_caught_up()
        return False

    def _make(self) -> None:
        supervisor = self._supervisor
        binaries = find_binaries(supervisor.account, supervisor.home)
        self._template = supervisor.home / "template"
        files = (binaries / "initdb", "-D", self._template)
        supervisor.run(*files, *INITDB, "--wal-segsize=1")
        with (self._template / "postgresql.conf").open("a") as file:
            file.writelines(f"{k} = '{v}'\n" for k, v in self._settings.items())
            file.write("include_if_exists = 'follow.conf'\n")
        names = [*(f"replica{i}" for i in range(self._count)), "primary"]
        self.servers = [PostgresqlServer(supervisor, binaries, name) for name in names]
        self._build()

    def _build(self) -> None:
        self.primary = self.servers[FIRST_PRIMARY]
        for server in self.servers:
            server.kill()
            server.copy_from(self._template)
            server.follow(None if server is self.primary else self.primary)
        start_all(self.servers[::-1])
        streaming = f"SELECT count(*) = {self._count} FROM pg_stat_replication"
        self.primary.wait_for(streaming, "lacks a replica")
        self._is_rebuilt = True

    def _running(self) -> list[PostgresqlServer]:
        return [server for server in self.servers if server.is_running]


@contextlib.contextmanager
def replication(options: Sequence[str]) -> Iterator[dict[str, str]]:
    """Start the servers, and give the variables that name their addresses.

    Raises `ServerError` when there are no binaries, or they do not start.
    """
    pairs = (option.removeprefix("--").split("=", 1) for option in options)
    settings = {key.replace("-", "_"): value for key, value in pairs}
    count = int(settings.pop("replicas", "1"))
    with Replication(count, **settings) as servers:
        yield {
            "UNITWORK_TEST_PRIMARY": servers.primary_url,
            "UNITWORK_TEST_REPLICAS": ",".join(servers.replica_urls),
        }
