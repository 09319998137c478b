"""The example application over a primary, two replicas and a PgBouncer, to play with.

    make cluster

Reads commands, such as "pause 0" or "promote 1"; "help" lists them. Ctrl-C, Ctrl-D or
"quit" ends all that it has started.
"""

import contextlib
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
from sqlalchemy import create_engine

from examples.items.models import Base
from servers.host import Account, ServerError, free_port
from servers.pgbouncer import CONFIGURATION, find_pgbouncer
from servers.postgresql_replication import Replication
from servers.supervisor import Supervisor

ROOT = Path(__file__).parents[1]
WORKERS = 2
ROLE = """
    SELECT CASE WHEN NOT pg_is_in_recovery() THEN 'primary'
        WHEN pg_is_wal_replay_paused() THEN 'replica, paused' ELSE 'replica' END
"""
CLIENTS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class Cluster:
    """The servers, the pooler and the application. Lives as long as the block."""

    def __init__(self) -> None:
        self.servers = Replication(replicas=2)
        self._pooling = Supervisor("PgBouncer", signals="KILL")
        self._serving = Supervisor("Items", signals="TERM", account=Account())
        self._bouncer = find_pgbouncer()
        self._pooler_port = free_port()
        self._port = int(os.environ.get("PORT", "0")) or free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        # Keeps the cookie by which a read sees what was written before.
        self._client = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())

    @contextlib.contextmanager
    def running(self) -> Iterator["Cluster"]:
        with self.servers, self._pooling, self._serving:
            url = self.servers.primary_url
            engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
            Base.metadata.create_all(engine)
            engine.dispose()
            self.servers.wait_caught_up()
            self._start_pooler()
            self._start_application()
            yield self

    @property
    def pooler_url(self) -> str | None:
        """The address of PgBouncer, where there is one."""
        port = self._pooler_port
        return self._bouncer and f"postgresql://postgres@127.0.0.1:{port}/postgres"

    def point_pooler(self) -> None:
        """Let PgBouncer connect to the server that is the primary now."""
        if self._bouncer is not None:
            self._write_configuration()
            os.kill(self._pooler, 1)  # SIGHUP: read it again

    def _start_pooler(self) -> None:
        if self._bouncer is not None:
            file = self._write_configuration()
            self._pooler = self._pooling.start(self._bouncer, file)

    def _write_configuration(self) -> Path:
        file = self._pooling.home / "pgbouncer.ini"
        file.write_text(
            CONFIGURATION.format(
                host="127.0.0.1",
                port=self.servers.primary.port,
                user="postgres",
                own_port=self._pooler_port,
                home=self._pooling.home,
                pool=10,
            )
        )
        self._pooling.account.take(file)
        return file

    def _start_application(self) -> None:
        url = self.pooler_url or self._all_hosts()
        self._serving.start(
            "env",
            f"PYTHONPATH={os.pathsep.join([str(ROOT), *sys.path])}",
            f"DATABASE_URL={_with_driver(url)}",
            f"REPLICA_URLS={' '.join(map(_with_driver, self.servers.replica_urls))}",
            *(["PGBOUNCER=1"] if self.pooler_url else []),
            *(sys.executable, "-m", "uvicorn", "examples.items.app:app"),
            *("--port", self._port, "--workers", WORKERS, "--log-level", "warning"),
            *("--timeout-graceful-shutdown", 2),
        )
        deadline = time.monotonic() + 60
        while self.read() is None:
            if time.monotonic() > deadline:
                raise ServerError(f"no application:\n{self._serving.log()}")
            time.sleep(0.1)

    def _all_hosts(self) -> str:
        """A URL by which the driver finds the server that is the primary."""
        ports = [server.port for server in reversed(self.servers.servers)]
        hosts = "&".join(f"host=127.0.0.1:{port}" for port in ports)
        return (
            f"postgresql://postgres@/postgres?{hosts}&target_session_attrs=read-write"
        )

    def read(self) -> str | None:
        """What the application answers to a read; `None` if it does not listen."""
        return self._answer(urllib.request.Request(f"{self.url}/items/"))

    def write(self) -> str | None:
        """What it answers to a write."""
        lamp = json.dumps({"name": "Lamp", "price": 35.5}).encode()
        headers = {"Content-Type": "application/json"}
        return self._answer(urllib.request.Request(f"{self.url}/items/", lamp, headers))

    def _answer(self, request: urllib.request.Request) -> str | None:
        try:
            with self._client.open(request, timeout=30) as response:
                return f"{response.status} {response.read().decode()[:300]}"
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read().decode()[:300]}"
        except OSError:
            return None

    def log(self) -> str:
        return self._serving.log()

    def status(self) -> str:
        lines = []
        for number, server in enumerate(self.servers.servers):
            name = "first" if server is self.servers.servers[-1] else str(number)
            try:
                role = server.ask(ROLE)
                count = server.ask("SELECT count(*) FROM items")
                what = f"{role}, {count} items, {server.ask(CLIENTS)} connections"
            except psycopg.Error:
                what = "does not answer"
            lines.append(f"  {name:6} {server.url}  {what}")
        return "\n".join(lines)


def _with_driver(url: str) -> str:
    return url.replace("postgresql:", "postgresql+asyncpg:")


class Commands:
    """What can be typed. Servers are 0, 1 and "first", the primary at first."""

    def __init__(self, cluster: Cluster) -> None:
        servers = cluster.servers
        self._cluster = cluster
        self._commands: dict[str, tuple[str, Callable[..., object]]] = {
            "status": ("roles of the servers, and their items", cluster.status),
            "write": ("store an item through the application", cluster.write),
            "read": ("read items through the application", cluster.read),
            "pause N": ("replica N replays nothing", servers.pause),
            "resume N": ("it replays again", servers.resume),
            "delay N MS": ("it replays MS milliseconds late", servers.set_delay),
            "freeze N": ("server N hangs", servers.freeze),
            "thaw N": ("it continues", servers.thaw),
            "kill N": ("server N crashes", servers.kill),
            "start N": ("it is started again", servers.start),
            "promote N": ("replica N becomes the primary", self._promote),
            "failover": ("kill the primary, promote a replica", self._fail_over),
            "rejoin": ("former primaries become replicas", servers.rejoin),
            "synchronous": ("COMMIT waits for a replica", self._synchronous),
            "log": ("the end of the application's log", cluster.log),
            "help": ("this list", self.help),
        }

    def execute(self, line: str) -> None:
        """Execute what was typed, and print what there is to say."""
        name, *arguments = line.split()
        known = {key.split()[0]: each for key, (_, each) in self._commands.items()}
        if name not in known:
            print(f"there is no command {name}; help lists them", flush=True)
            return
        numbers = [-1 if each == "first" else int(each) for each in arguments]
        print(known[name](*numbers) or "done", flush=True)

    def help(self) -> str:
        """The commands and what they do."""
        return "\n".join(f"  {k:12} {what}" for k, (what, _) in self._commands.items())

    def _promote(self, number: int) -> None:
        self._cluster.servers.promote(number)
        self._cluster.point_pooler()

    def _fail_over(self) -> None:
        self._cluster.servers.fail_over()
        self._cluster.point_pooler()

    def _synchronous(self) -> None:
        self._cluster.servers.set_synchronous(True)


def main() -> int:
    # A shell ignores it for what it starts in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Cluster().running() as cluster:
            commands = Commands(cluster)
            print(_welcome(cluster, commands), flush=True)
            for line in _lines():
                _execute(commands, line)
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _execute(commands: Commands, line: str) -> None:
    try:
        commands.execute(line)
    except (ServerError, psycopg.Error, TypeError, ValueError, LookupError) as error:
        print(f"{type(error).__name__}: {error}", flush=True)


def _lines() -> Iterator[str]:
    """What is typed, until "quit" or the end."""
    with contextlib.suppress(EOFError):
        while (line := input("> ").strip()) != "quit":
            if line:
                yield line


def _welcome(cluster: Cluster, commands: Commands) -> str:
    return f"""\
The example application, with {WORKERS} workers: {cluster.url}/docs
PgBouncer before the primary: {cluster.pooler_url or "not installed"}
Servers:
{cluster.status()}
Commands; N is 0 or 1 for a replica, or "first" for the first primary:
{commands.help()}
Ctrl-C ends it all."""


if __name__ == "__main__":
    sys.exit(main())
