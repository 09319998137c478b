"""A MariaDB Galera cluster of three nodes, to be killed, and to lose its quorum.

with Galera() as galera:
    galera.kill(0)
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

from .command import do_without
from .galera_node import Node
from .host import MissingError
from .mariadb import find_programs, installation
from .server_group import ServerGroup, start_all

PROVIDER = "/usr/lib/galera/libgalera_smm.so"
MISSING = (
    "no Galera found; set $GALERA_PROVIDER, or: apt install galera-4 mariadb-server"
    " rsync"
)


class Galera(ServerGroup):
    """A cluster of *nodes* with a quorum; *settings* are those of all nodes."""

    def __init__(self, nodes: int = 3, **settings: str | int | bool) -> None:
        super().__init__("Galera", signals="KILL")
        self._count = nodes
        self._settings = [
            f"--{key.replace('_', '-')}={value}" for key, value in settings.items()
        ]
        self._is_complete = False

    @property
    def urls(self) -> list[str]:
        """The addresses of the nodes."""
        return [node.url for node in self.nodes]

    def kill(self, i: int) -> None:
        """End node *i* at once, as a crash does; the others wait some 3 seconds."""
        self._is_complete = False
        self.nodes[i].kill()

    def stop(self, i: int) -> None:
        """End node *i* in good order: the others need not wait."""
        self._is_complete = False
        self.nodes[i].stop()

    def start(self, i: int) -> None:
        """Start node *i* again; it gets from the others what it missed."""
        self.nodes[i].join([node for node in self.nodes if node.is_running])
        self.nodes[i].start_again()

    def freeze(self, i: int) -> None:
        """Stop the process of node *i*: it is reached, and never answers."""
        self.nodes[i].freeze()

    def thaw(self, i: int) -> None:
        """Let node *i* continue after `freeze()`, and wait until it has all data."""
        self.nodes[i].thaw()
        self.nodes[i].wait_until_ready()

    def stop_quorum(self, alone: int = 0) -> None:
        """Cut node *alone* off: all others are frozen, and it refuses to work."""
        for node in self.nodes:
            if node is not self.nodes[alone]:
                node.freeze()
        self.nodes[alone].wait_until_alone()

    def restore_quorum(self) -> None:
        """Let all nodes continue together after `stop_quorum()`."""
        for node in self.nodes:
            node.thaw()
        self.wait_until_synced()

    def wait_until_synced(self) -> None:
        """Wait until each running node belongs to the cluster and has all data."""
        for node in self.nodes:
            if node.is_running:
                node.wait_until_ready()

    def reset(self) -> bool:
        """Let all nodes run together again.

        Returns whether they were made anew, without any table: after one was killed.
        """
        if self._is_complete:
            self.restore_quorum()
            return False
        self._build()
        return True

    def _make(self) -> None:
        server, install, provider = find_galera()
        installed = self._supervisor.home / "installed"
        self._supervisor.run(*installation(install, installed))
        self.nodes = [
            Node(self._supervisor, f"node{i}", server, (provider, *self._settings))
            for i in range(self._count)
        ]
        self._template = self._found(installed)
        self._build()

    def _found(self, installed: Path) -> Path:
        """Make the files with which all nodes begin: those of a new cluster."""
        founder = self.nodes[0]
        founder.copy_from(installed)
        founder.begin_start("--wsrep-new-cluster")
        founder.wait_until_ready()
        founder.stop()
        return founder.data.rename(self._supervisor.home / "template")

    def _build(self) -> None:
        identities = {node.name: _identity() for node in self.nodes}
        for node in self.nodes:
            node.kill()
            node.copy_from(self._template)
            node.remember(identities)
            node.join(self.nodes)
        start_all(self.nodes)
        self._is_complete = True


def _identity() -> str:
    """A UUID of the form that Galera reads: of version 1."""
    made = str(uuid4())
    return f"{made[:14]}1{made[15:]}"


def find_galera() -> tuple[str, str, str]:
    """The server, the program that installs its files, and the option for Galera.

    Raises `MissingError`.
    """
    provider = os.environ.get("GALERA_PROVIDER", PROVIDER)
    if not Path(provider).exists():
        raise MissingError(MISSING)
    return *find_programs(), f"--wsrep-provider={provider}"


@contextlib.contextmanager
def galera(options: Sequence[str]) -> Iterator[dict[str, str]]:
    """Start the nodes, and give the variable that names their addresses.

    Raises `ServerError` when they do not start; in CI, also where there are none.
    """
    pairs = (option.removeprefix("--").split("=", 1) for option in options)
    try:
        find_galera()
    except MissingError as missing:
        do_without("tools/galera.py", str(missing))
        yield {}
        return
    with Galera(**dict(pairs)) as cluster:  # type: ignore[arg-type]  # no "nodes"
        yield {"UNITWORK_TEST_GALERA": ",".join(cluster.urls)}
