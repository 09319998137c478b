"""A database server for one command: what its launchers have in common.

The server runs on a free loopback port, as somebody who may do little, in a folder of
its own that goes with it.
"""

import contextlib
import os
import pwd
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

PORTS = range(10_000, 32_768)  # below the ports that the kernel hands to clients

# The server is a child of this shell, not of ours. The shell ends it once its stdin
# closes, and the kernel closes that however we die: kill -9 leaves nothing behind.
KEEPER = """
home=$1 prepare=$2 serve=$3 signals=$4
trap 'rm -rf "$home"' EXIT
eval "$prepare" </dev/null || exit
exec 3<&0
eval "exec $serve" 3<&- &
server=$!
{ read -r _; for each in $signals; do kill -$each $server; done; } <&3 &
wait $server
kill $!
wait
"""


class ServerError(Exception):
    """No private server, and why."""


class MissingError(ServerError):
    """No private server, since it is not installed."""


class Account(NamedTuple):
    """The keywords of `subprocess` for running as somebody; empty for ourselves."""

    user: int | None = None
    group: int | None = None
    extra_groups: list[int] | None = None

    def may_use(self, path: Path) -> bool:
        """Whether it may run the file, or enter the folder, *path*."""
        command = ["test", "-x", str(path)]
        run = subprocess.run(command, cwd="/", check=False, **self._asdict())
        return run.returncode == 0

    def take(self, path: Path) -> None:
        """Make it the owner of *path*."""
        os.chown(path, self.user or -1, self.group or -1)  # -1: leave it


class Place(NamedTuple):
    """Where a server is to run."""

    home: Path
    port: int
    account: Account


class Recipe(NamedTuple):
    """How a server is made and run."""

    prepare: Sequence[object]
    serve: Sequence[object]
    signals: str
    """They stop it at once, one after the other."""
    pid_file: Path
    ready: str
    """What the file says once clients may connect."""


Environment = Callable[[Sequence[str]], AbstractContextManager[dict[str, str]]]
"""Starts a server with these options, and gives the variables that tell of it."""


@contextlib.contextmanager
def private_server(name: str, recipe: Callable[[Place], Recipe]) -> Iterator[int]:
    """Start a server and give its port; stop and remove it at the end.

    Raises `ServerError` when it does not start.
    """
    for _ in range(5):
        with _kept(name, recipe) as (port, trouble):
            if not trouble:
                yield port
                return
        if "Address already in use" not in trouble:  # else: somebody was faster
            break
    raise ServerError(f"{name} did not start:\n{trouble}")


@contextlib.contextmanager
def _kept(name: str, recipe: Callable[[Place], Recipe]) -> Iterator[tuple[int, str]]:
    """Yield the port, and what the server said if it did not come up."""
    account = server_account()
    port = free_port()
    with private_folder(name, account) as home, tempfile.TemporaryFile("w+") as log:
        made = recipe(Place(home, port, account))
        commands = [_join(made.prepare), _join(made.serve)]
        keeper = subprocess.Popen(
            ["sh", "-c", KEEPER, "keeper", home, *commands, made.signals],
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
            up = _wait_until_up(keeper, made)
            log.seek(0)
            yield port, "" if up else log.read() or "no output"
        finally:
            # A line, then the end of file: a forked child may hold the pipe open.
            keeper.communicate("stop\n")


def _join(command: Sequence[object]) -> str:
    return shlex.join(str(each) for each in command)


def _wait_until_up(keeper: subprocess.Popen[str], recipe: Recipe) -> bool:
    deadline = time.monotonic() + 60
    while keeper.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if recipe.ready in recipe.pid_file.read_text():
                return True
        time.sleep(0.02)
    return False


def server_account() -> Account:
    """Whom to run the server as: one refuses to be root, the other should."""
    if os.geteuid() != 0:
        return Account()
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid, [])


@contextlib.contextmanager
def private_folder(name: str, account: Account) -> Iterator[Path]:
    # A folder inside one that only root may enter would be of no use to nobody.
    parents = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    parent = next((p for p in parents if account.may_use(p)), parents[0])
    home = Path(tempfile.mkdtemp(prefix=f"unitwork-{name.lower()}-", dir=parent))
    try:
        account.take(home)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)  # mostly done by the keeper


def free_port() -> int:
    for port in random.sample(PORTS, 50):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerError(f"50 ports tried in {PORTS}, none is free")


def do_without(program: str, missing: str) -> None:
    """Say that the command runs without a server; in CI that is an error.

    Raises `ServerError` there.
    """
    if os.environ.get("CI"):
        raise ServerError(missing)
    print(f"{program}: {missing}; going on without it", file=sys.stderr)


def run_beside(environment: Environment, argv: Sequence[str]) -> int:
    """Run the command behind the first `--` while a server is up.

    Its exit code is ours.
    """
    program, *options = argv
    command: list[str] = []
    if "--" in options:
        here = options.index("--")
        options, command = options[:here], options[here + 1 :]
    if not command:
        usage = f"usage: python {program} [SERVER OPTION ...] -- COMMAND ..."
        print(usage, file=sys.stderr)
        return 2
    try:
        with environment(options) as variables:
            return _run(command, variables)
    except (ServerError, FileNotFoundError) as error:
        print(f"{program}: {error}", file=sys.stderr)
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
