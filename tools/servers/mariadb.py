"""MariaDB: its programs, the settings of the tests, and one server for a command."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from .command import do_without
from .host import MissingError, find_program
from .private_server import Place, Recipe, private_server

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
    # The tests look for open transactions. INNODB_TRX answers from a cache.
    "--performance-schema=ON",
    "--performance-schema-consumer-events-transactions-current=ON",
    "--performance-schema-instrument=%=OFF",
    "--performance-schema-instrument=transaction=ON",
)


@contextlib.contextmanager
def mariadb(options: Sequence[str]) -> Iterator[dict[str, str]]:
    """Start a server, and give the variable that names its address.

    Raises `ServerError` when the programs do not start; in CI, also without any.
    """
    try:
        server, install = find_programs()
    except MissingError as missing:
        do_without("tools/mariadb.py", str(missing))
        yield {}
        return

    def recipe(place: Place) -> Recipe:
        home = place.home
        data = home / "data"
        files = [
            f"--socket={home}/socket",
            f"--tmpdir={home}",
            f"--pid-file={home}/pid",
        ]
        where = ["--no-defaults", f"--datadir={data}", *files, f"--port={place.port}"]
        return Recipe(
            prepare=installation(install, data),
            serve=[server, *where, *STORAGE, *SETTINGS, *options],
            signals="KILL",
            pid_file=home / "pid",
            ready="\n",
        )

    with private_server("MariaDB", recipe) as port:
        yield {"UNITWORK_TEST_MARIADB": f"mysql://root@127.0.0.1:{port}/test"}


def find_programs() -> tuple[str, str]:
    """The server, and the program that installs its files. Raises `MissingError`."""
    server = find_program("mariadbd", "MARIADB_BIN")
    install = find_program("mariadb-install-db", "MARIADB_BIN")
    if server is None or install is None:
        raise MissingError(MISSING)
    return server, install


def installation(install: str, data: Path) -> list[object]:
    """The command that makes the files of a new server in *data*."""
    return [
        *(install, "--no-defaults", f"--datadir={data}", *STORAGE),
        f"--tmpdir={data.parent}",  # a server removes those of others when it starts
        "--auth-root-authentication-method=normal",
        "--force",  # whatever DNS may say
    ]
