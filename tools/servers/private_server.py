"""One server, on a free loopback port, in a folder that is removed with it."""

import contextlib
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .host import Account, ServerError, free_port, private_folder, server_account

# The server is a child of this shell, not of this process. The shell ends it once its
# stdin closes, and the kernel closes that however this process dies.
SUPERVISOR = """
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


@contextlib.contextmanager
def private_server(name: str, recipe: Callable[[Place], Recipe]) -> Iterator[int]:
    """Start a server and give its port; stop and remove it at the end.

    Raises `ServerError` when it does not start.
    """
    for _ in range(5):
        with _supervised(name, recipe) as (port, output):
            if not output:
                yield port
                return
        # Another process may have taken the port meanwhile.
        if "Address already in use" not in output:
            break
    raise ServerError(f"{name} did not start:\n{output}")


@contextlib.contextmanager
def _supervised(
    name: str, recipe: Callable[[Place], Recipe]
) -> Iterator[tuple[int, str]]:
    """Yield the port, and the output of the server if it did not start."""
    account = server_account()
    port = free_port()
    with private_folder(name, account) as home, tempfile.TemporaryFile("w+") as log:
        made = recipe(Place(home, port, account))
        commands = [_join(made.prepare), _join(made.serve)]
        supervisor = subprocess.Popen(
            ["sh", "-c", SUPERVISOR, "supervisor", home, *commands, made.signals],
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
            is_up = _wait_until_up(supervisor, made)
            log.seek(0)
            yield port, "" if is_up else log.read() or "no output"
        finally:
            # A line, then the end of file: a forked child may hold the pipe open.
            supervisor.communicate("stop\n")


def _join(command: Sequence[object]) -> str:
    return shlex.join(str(each) for each in command)


def _wait_until_up(supervisor: subprocess.Popen[str], recipe: Recipe) -> bool:
    deadline = time.monotonic() + 60
    while supervisor.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if recipe.ready in recipe.pid_file.read_text():
                return True
        time.sleep(0.02)
    return False
