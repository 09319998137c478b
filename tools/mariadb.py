"""A private MariaDB for one command, gone when the command is.

    python tools/mariadb.py -- pytest -x

The command finds the address in `UNITWORK_TEST_MARIADB`, and its exit code is ours.
What stands before the `--` goes to the server. Its binaries come from `$MARIADB_BIN`,
else from where Debian puts them, else from `$PATH`. Where there are none the command
runs without; in CI that is an error.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence

from private import (
    Place,
    Recipe,
    ServerError,
    do_without,
    private_server,
    run_beside,
)

DEBIAN = "/usr/sbin:/usr/bin"
MISSING = "no MariaDB found; set $MARIADB_BIN, or: apt install mariadb-server"
STORAGE = (  # nothing has to survive
    "--innodb-flush-method=nosync",
    "--debug-no-sync=1",
    "--innodb-doublewrite=0",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-log-file-size=4M",
    "--innodb-use-native-aio=0",
)
SETTINGS = (
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--max-connections=300",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_bin",  # as the others: A is not a
    "--aria-pagecache-buffer-size=1M",
    "--innodb-buffer-pool-size=16M",
    "--innodb-temp-data-file-path=ibtmp1:1M:autoextend",
    "--key-buffer-size=1M",
    # The tests ask who is in a transaction. INNODB_TRX answers from a cache.
    "--performance-schema=ON",
    "--performance-schema-consumer-events-transactions-current=ON",
    "--performance-schema-instrument=%=OFF",
    "--performance-schema-instrument=transaction=ON",
)


@contextlib.contextmanager
def mariadb(options: Sequence[str]) -> Iterator[dict[str, str]]:
    """Start a server, and give the variable that tells where it is.

    Raises `ServerError` when the binaries do not start; in CI, also without any.
    """
    server, install = find_binary("mariadbd"), find_binary("mariadb-install-db")
    if server is None or install is None:
        do_without("tools/mariadb.py", MISSING)
        yield {}
        return

    def recipe(place: Place) -> Recipe:
        home = place.home
        where = ["--no-defaults", f"--datadir={home}/data", *STORAGE]
        files = [
            f"--socket={home}/socket",
            f"--tmpdir={home}",
            f"--pid-file={home}/pid",
        ]
        no_password = "--auth-root-authentication-method=normal"
        return Recipe(
            prepare=[install, *where, no_password, "--force"],  # whatever DNS may say
            serve=[server, *where, *files, f"--port={place.port}", *SETTINGS, *options],
            signals="KILL",
            pid_file=home / "pid",
            ready="\n",
        )

    with private_server("MariaDB", recipe) as port:
        yield {"UNITWORK_TEST_MARIADB": f"mysql://root@127.0.0.1:{port}/test"}


def find_binary(name: str) -> str | None:
    if given := os.environ.get("MARIADB_BIN"):
        if found := shutil.which(name, path=given):
            return found
        raise ServerError(
            f"$MARIADB_BIN is {given}; it holds no {name} that may be run"
        )
    return shutil.which(name, path=DEBIAN) or shutil.which(name)


if __name__ == "__main__":
    sys.exit(run_beside(mariadb, sys.argv))
