"""One node of a Galera cluster: its files, its process, and what it answers."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pymysql

from keeper import Keeper
from mariadb import SETTINGS, STORAGE
from private import ServerError, free_port

SUSPECT = 2  # seconds without a sign of a node, after which the others go on without it
PROVIDER_OPTIONS = {
    "base_host": "127.0.0.1",
    "evs.suspect_timeout": f"PT{SUSPECT}S",
    "evs.keepalive_period": f"PT{SUSPECT / 4}S",
    "evs.inactive_timeout": f"PT{2 * SUSPECT}S",
    "evs.install_timeout": f"PT{2 * SUSPECT}S",
    "gcache.size": "16M",
}
WSREP = (
    "--binlog-format=ROW",
    "--innodb-autoinc-lock-mode=2",
    "--wsrep-on=ON",
    "--wsrep-cluster-name=unitwork",
    "--wsrep-node-address=127.0.0.1",
    "--wsrep-sst-method=rsync",
)
STATUS = """
    SELECT group_concat(variable_value ORDER BY variable_name)
    FROM information_schema.global_status
    WHERE variable_name IN ('wsrep_cluster_status', 'wsrep_local_state_comment')
"""
POSITION = re.compile(r"Recovered position: (\S+:-?\d+)")


class Node:
    """A node with files of its own, whose port stays the same.

    *server* are the words that start it. Methods return when what they are for has
    happened; they raise `ServerError` when it does not happen.
    """

    def __init__(self, keeper: Keeper, name: str, server: Sequence[object]) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"mysql://root@127.0.0.1:{self.port}/test"
        self.group_address = f"127.0.0.1:{free_port()}"
        self.data = keeper.home / name
        self._addresses = {
            "gmcast.listen_addr": f"tcp://{self.group_address}",
            "ist.recv_addr": f"127.0.0.1:{free_port()}",
        }
        self._keeper = keeper
        self._process = 0
        self._command: list[object] = [
            *(*server, *STORAGE, *SETTINGS, *WSREP),
            *(f"--datadir={self.data}", f"--tmpdir={self.data}"),
            *(f"--socket={self.data}/socket", f"--pid-file={self.data}/pid"),
            *(f"--port={self.port}", f"--wsrep-node-name={name}"),
            f"--wsrep-sst-receive-address=127.0.0.1:{free_port()}",
        ]

    def copy_from(self, template: Path) -> None:
        """Take the files of *template* in place of its own; it must not run."""
        self._keeper.run("rm", "-rf", self.data)
        self._keeper.run("cp", "-a", template, self.data)

    def remember(self, identities: dict[str, str]) -> None:
        """Be, from the next start on, a member of the group of these nodes.

        They find each other again, as after a power cut, and copy nothing if all of
        them have the same state. *identities* has the UUID of each name.
        """
        members = sorted(identities.values())
        lines = [
            f"my_uuid: {identities[self.name]}",
            f"#vwbeg\nview_id: 3 {members[0]} 1\nbootstrap: 0",
            *(f"member: {member} 0" for member in members),
            "#vwend\n",
        ]
        file = self.data / "gvwstate.dat"
        file.write_text("\n".join(lines))
        self._keeper.account.take(file)

    def begin_start(self, peers: Sequence["Node"] = (), *words: str) -> None:
        """Start it; several start side by side."""
        options = PROVIDER_OPTIONS | self._addresses
        pairs = ";".join(f"{key}={value}" for key, value in options.items())
        group = ",".join(peer.group_address for peer in peers)
        self._process = self._keeper.start(
            *self._command,
            f"--wsrep-provider-options={pairs}",
            f"--wsrep-cluster-address=gcomm://{group}",
            *words,
        )

    def start_again(self, peers: Sequence["Node"]) -> None:
        """Start it after a crash, and wait until it has what it missed."""
        log = self.data / "recovery.log"
        self._keeper.run(
            *self._command,
            *("--wsrep-recover", "--wsrep-cluster-address=gcomm://"),
            f"--log-error={log}",
        )
        position = POSITION.findall(log.read_text())[-1]
        log.unlink()
        self.begin_start(peers, f"--wsrep-start-position={position}")
        self.wait_until_synced()

    def wait_until_synced(self) -> None:
        """Wait until it belongs to a cluster with a quorum, and has all of its data."""
        self._until(lambda: self.status() == "Primary,Synced", "is not synced")

    def wait_until_alone(self) -> None:
        """Wait until it belongs to no cluster with a quorum."""
        self._until(lambda: self.status().startswith("non-Primary"), "is not alone")

    def status(self) -> str:
        """Such as "Primary,Synced"; empty if it does not answer."""
        with contextlib.suppress(pymysql.err.MySQLError):
            return str(self.ask(STATUS))
        return ""

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither killed nor stopped since."""
        return self._process != 0

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order: the others know it at once."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self.is_running:
            self.thaw()
            os.kill(self._process, how)
            self._keeper.wait(self._process)
            self._process = 0

    def freeze(self) -> None:
        """Stop its process, as a host does that hangs: connections stay open."""
        os.kill(self._process, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen node continue."""
        if self.is_running:
            os.kill(self._process, signal.SIGCONT)

    def ask(self, statement: str) -> Any:
        """Execute *statement* by itself; gives its first value, if there is one."""
        connection = pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user="root",
            database="test",
            autocommit=True,
            ssl_disabled=True,
            read_timeout=20,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone()
        return row and row[0]

    def _until(self, true: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + 60
        while not true():
            if not self._keeper.is_running(self._process):
                self._process = 0
                raise ServerError(f"{self.name} has ended:\n{self._keeper.log()}")
            if time.monotonic() > deadline:
                log = self._keeper.log()
                raise ServerError(f"{self.name} {otherwise} after 60 seconds:\n{log}")
            time.sleep(0.05)
