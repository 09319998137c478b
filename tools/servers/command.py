"""A command that runs while a server is up, and finds its address in a variable."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from .host import ServerError

Environment = Callable[[Sequence[str]], AbstractContextManager[dict[str, str]]]
"""Starts a server with these options, and gives the variables that name it."""


def run_beside(environment: Environment, argv: Sequence[str]) -> int:
    """Run the command behind the first `--` while a server is up.

    Returns the exit code of the command; 1 if the server does not start, 2 if there is
    no command.
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


def do_without(program: str, missing: str) -> None:
    """Print that the command runs without a server; in CI raise `ServerError`."""
    if os.environ.get("CI"):
        raise ServerError(missing)
    print(f"{program}: {missing}; going on without it", file=sys.stderr)


def _run(command: Sequence[str], variables: dict[str, str]) -> int:
    child = subprocess.Popen(command, env={**os.environ, **variables})
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda *_: child.terminate())
    # The terminal sends Ctrl-C to the command as well: give that time for its report.
    signal.signal(signal.SIGINT, lambda *_: signal.alarm(10))
    code = child.wait()
    return code if code >= 0 else 128 - code
