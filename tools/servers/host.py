"""What a server needs of its host: an account, a folder, a port and its program."""

import contextlib
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PORTS = range(10_000, 32_768)  # below the ports that the kernel hands to clients
DEBIAN = "/usr/sbin:/usr/bin"


class ServerError(Exception):
    """No private server, and why."""


class MissingError(ServerError):
    """No private server, since it is not installed."""


class Account(NamedTuple):
    """The keywords of `subprocess` for another account; empty for this one."""

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


def server_account() -> Account:
    """The account that runs servers: root is replaced, since PostgreSQL refuses it."""
    if os.geteuid() != 0:
        return Account()
    other = pwd.getpwnam("nobody")
    return Account(other.pw_uid, other.pw_gid, [])


@contextlib.contextmanager
def private_folder(name: str, account: Account) -> Iterator[Path]:
    """Make a folder that *account* owns, and remove it at the end."""
    # The account can't use a folder inside one that only root may enter.
    parents = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    parent = next((p for p in parents if account.may_use(p)), parents[0])
    prefix = f"unitwork-{name.lower().replace(' ', '-')}-"
    home = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        account.take(home)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)  # its shell has removed most of it


def free_port() -> int:
    """A loopback port that no server uses now."""
    for port in random.sample(PORTS, 50):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerError(f"50 ports tried in {PORTS}, none is free")


def find_program(name: str, variable: str) -> str | None:
    """The path of *name*: in the folder that *variable* names, else Debian's, else any.

    Raises `ServerError` if the folder that *variable* names does not have it.
    """
    if given := os.environ.get(variable):
        if found := shutil.which(name, path=given):
            return found
        raise ServerError(f"${variable} is {given}; it holds no {name} that may be run")
    return shutil.which(name, path=DEBIAN) or shutil.which(name)
