"""A MariaDB Galera cluster of three nodes, to be killed, and to lose its quorum.

    with Galera() as galera:
        galera.kill(0)

For one command, with nothing to be killed:

    python tools/galera.py --wsrep-sync-wait=1 -- pytest -x

which finds the addresses in `UNITWORK_TEST_GALERA`, with a comma between them. What
stands before the `--` goes to the nodes. The server is that of `tools/mariadb.py`; the
provider is `$GALERA_PROVIDER`, else Debian's. Where there is none the command runs
without; in CI that is an error.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from galera_node import Node
from keeper import Keeper
from mariadb import STORAGE, find_binary
from private import MissingError, do_without, run_beside

PROVIDER = "/usr/lib/galera/libgalera_smm.so"
MISSING = (
    "no Galera found; set $GALERA_PROVIDER, or: apt install galera-4 mariadb-server"
    " rsync"
)


class Galera:
    """A cluster of *nodes* with a quorum; *settings* are those of all nodes.

    Nodes keep their numbers and addresses. Methods return when what they are for has
    happened. They may be called in any thread, by one at a time; they block it.
    """

    def __init__(self, nodes: int = 3, **settings: str | int | bool) -> None:
        self._keeper = Keeper("Galera", signals="KILL")
        self._count = nodes
        self._settings = [
            f"--{key.replace('_', '-')}={value}" for key, value in settings.items()
        ]
        self._is_complete = False

    def __enter__(self) -> Self:
        server, install, provider = find_galera()
        self._keeper.__enter__()
        try:
            self._make([server, "--no-defaults", provider, *self._settings], install)
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
        running = [node for node in self.nodes if node.is_running]
        self.nodes[i].start_again(running)

    def freeze(self, i: int) -> None:
        """Stop the process of node *i*: it is reached, and never answers."""
        self.nodes[i].freeze()

    def thaw(self, i: int) -> None:
        """Let node *i* continue after `freeze()`, and wait until it has all data."""
        self.nodes[i].thaw()
        self.nodes[i].wait_until_synced()

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
                node.wait_until_synced()

    def reset(self) -> bool:
        """Let all nodes run together again.

        Returns whether they were made anew, without any table: after one was killed.
        """
        if self._is_complete:
            self.restore_quorum()
            return False
        self._build()
        return True

    def _make(self, server: list[object], install: str) -> None:
        keeper, first = self._keeper, self._keeper.home / "installed"
        keeper.run(
            *(install, "--no-defaults", f"--datadir={first}", *STORAGE),
            *("--auth-root-authentication-method=normal", "--force"),
        )
        names = [f"node{i}" for i in range(self._count)]
        self.nodes = [Node(keeper, name, server) for name in names]
        self._template = self._found(first)
        self._build()

    def _found(self, installed: Path) -> Path:
        """Make the files with which all nodes begin: those of a new cluster."""
        founder = self.nodes[0]
        founder.copy_from(installed)
        founder.begin_start([], "--wsrep-new-cluster")
        founder.wait_until_synced()
        founder.stop()
        return founder.data.rename(self._keeper.home / "template")

    def _build(self) -> None:
        identities = {node.name: _identity() for node in self.nodes}
        for node in self.nodes:
            node.kill()
            node.copy_from(self._template)
            node.remember(identities)
        for node in self.nodes:
            node.begin_start(self.nodes)
        self.wait_until_synced()
        self._is_complete = True


def _identity() -> str:
    """A UUID of the form that Galera reads: of version 1."""
    made = str(uuid4())
    return f"{made[:14]}1{made[15:]}"


def find_galera() -> tuple[str, str, str]:
    """The server, the program that installs its files, and the option for Galera.

    Raises `MissingError`.
    """
    server, install = find_binary("mariadbd"), find_binary("mariadb-install-db")
    provider = os.environ.get("GALERA_PROVIDER", PROVIDER)
    if server is None or install is None or not Path(provider).exists():
        raise MissingError(MISSING)
    return server, install, f"--wsrep-provider={provider}"


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


if __name__ == "__main__":
    sys.exit(run_beside(galera, sys.argv))
