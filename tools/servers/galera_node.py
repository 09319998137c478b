"""One node of a Galera cluster: its files, its process, and what it answers."""

import contextlib
import re
import signal
from collections.abc import Sequence

import pymysql

from .host import free_port
from .mariadb_server import MariadbServer
from .supervisor import Supervisor

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


class Node(MariadbServer):
    """A node of MariaDB; *program* and *options* start it."""

    def __init__(
        self, supervisor: Supervisor, name: str, program: str, options: Sequence[object]
    ) -> None:
        own = (
            f"--wsrep-node-name={name}",
            f"--wsrep-sst-receive-address=127.0.0.1:{free_port()}",
        )
        super().__init__(supervisor, name, program, (*WSREP, *own, *options))
        self.group_address = f"127.0.0.1:{free_port()}"
        self._addresses = {
            "gmcast.listen_addr": f"tcp://{self.group_address}",
            "ist.recv_addr": f"127.0.0.1:{free_port()}",
        }
        self._peers: Sequence[Node] = ()

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
        self._supervisor.account.take(file)

    def join(self, peers: Sequence["Node"]) -> None:
        """Look for the cluster at the addresses of *peers*, from the next start on."""
        self._peers = peers

    def begin_start(self, *options: str) -> None:
        pairs = PROVIDER_OPTIONS | self._addresses
        provider_options = ";".join(f"{key}={value}" for key, value in pairs.items())
        group = ",".join(peer.group_address for peer in self._peers)
        self._process = self._supervisor.start(
            *self._command,
            f"--wsrep-provider-options={provider_options}",
            f"--wsrep-cluster-address=gcomm://{group}",
            *options,
        )

    def start_again(self) -> None:
        """Start it after a crash, and wait until it has what it missed."""
        log = self.data / "recovery.log"
        self._supervisor.run(
            *self._command,
            *("--wsrep-recover", "--wsrep-cluster-address=gcomm://"),
            f"--log-error={log}",
        )
        position = POSITION.findall(log.read_text())[-1]
        log.unlink()
        self.begin_start(f"--wsrep-start-position={position}")
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until it belongs to a cluster with a quorum, and has all of its data."""
        self._wait_until(lambda: self.status() == "Primary,Synced", "is not synced")

    def wait_until_alone(self) -> None:
        """Wait until it belongs to no cluster with a quorum."""
        self._wait_until(
            lambda: self.status().startswith("non-Primary"), "is not alone"
        )

    def status(self) -> str:
        """Such as "Primary,Synced"; empty if it does not answer."""
        with contextlib.suppress(pymysql.err.MySQLError):
            return str(self.ask(STATUS))
        return ""

    def stop(self) -> None:
        """End it in good order: the others know it at once."""
        self._end(signal.SIGTERM)
