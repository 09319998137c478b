"""A private PgBouncer for one command, in front of the PostgreSQL of the one around.

    python tools/postgres.py -- python tools/pgbouncer.py -- pytest -x

It pools transactions, over two server connections for each database, and finds the
server in `UNITWORK_TEST_POSTGRESQL`. The command finds the address in
`UNITWORK_TEST_PGBOUNCER`, and its exit code is ours. What stands before the `--` goes
to PgBouncer, which comes from `$PGBOUNCER_BIN`, else from where Debian puts it, else
from `$PATH`. Where there is none the command runs without; in CI that is an error.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from private import (
    Place,
    Recipe,
    ServerError,
    do_without,
    private_server,
    run_beside,
)

DEBIAN = "/usr/sbin:/usr/bin"
MISSING = "no PgBouncer found; set $PGBOUNCER_BIN, or: apt install pgbouncer"
NO_SERVER = (
    "UNITWORK_TEST_POSTGRESQL is not set, and names the server to stand before; run"
    " this by tools/postgres.py"
)
CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 300
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pidfile = {home}/pid
log_connections = 0
log_disconnections = 0
log_stats = 0
"""


@contextlib.contextmanager
def pgbouncer(options: Sequence[str]) -> Iterator[dict[str, str]]:
    """Start a PgBouncer, and give the variable that tells where it is.

    Raises `ServerError` when there is no PostgreSQL, or the binary does not start; in
    CI, also without any.
    """
    binary = find_pgbouncer()
    if binary is None:
        do_without("tools/pgbouncer.py", MISSING)
        yield {}
        return
    server = urlsplit(os.environ.get("UNITWORK_TEST_POSTGRESQL", ""))
    if not server.hostname:
        raise ServerError(NO_SERVER)

    def recipe(place: Place) -> Recipe:
        file = place.home / "pgbouncer.ini"
        file.write_text(
            CONFIGURATION.format(
                host=server.hostname,
                port=server.port,
                user=server.username,
                own_port=place.port,
                pool=os.environ.get("UNITWORK_TEST_PGBOUNCER_POOL", "2"),
                home=place.home,
            )
        )
        file.chmod(0o644)  # whatever the umask: somebody else is to read it
        return Recipe(
            prepare=[],
            serve=[binary, *options, file],
            signals="KILL",
            pid_file=place.home / "pid",
            ready="\n",
        )

    with private_server("PgBouncer", recipe) as port:
        url = f"postgresql://{server.username}@127.0.0.1:{port}{server.path}"
        yield {"UNITWORK_TEST_PGBOUNCER": url}


def find_pgbouncer() -> str | None:
    if given := os.environ.get("PGBOUNCER_BIN"):
        if found := shutil.which("pgbouncer", path=given):
            return found
        raise ServerError(
            f"$PGBOUNCER_BIN is {given}; it holds no pgbouncer that may be run"
        )
    return shutil.which("pgbouncer", path=DEBIAN) or shutil.which("pgbouncer")


if __name__ == "__main__":
    sys.exit(run_beside(pgbouncer, sys.argv))
