"""A private PgBouncer for one command, before the PostgreSQL of the command around it.

It pools transactions, over two server connections for each database.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from .command import do_without
from .host import ServerError, find_program
from .private_server import Place, Recipe, private_server

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
    """Start a PgBouncer, and give the variable that names its address.

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
        file.chmod(0o644)  # whatever the umask: another account reads it
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
    return find_program("pgbouncer", "PGBOUNCER_BIN")
