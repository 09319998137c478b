"""Runs of a program as forks of one process, which has the large imports behind it.

Each has its own exit code, output, folder and environment, as a process has that is
started from nothing; what it need not do is to import them again.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

PATIENCE = 60  # seconds for one run


class Ended(NamedTuple):
    """How a run has ended."""

    code: int
    output: str
    errors: str


class Forks:
    """Runs modules; made by `forks()`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, module: str, home: Path, environment: dict[str, str]) -> Ended:
        """Run `python -m module` in the folder *home*, to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([module, str(home), environment]), file=self._process.stdin)
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))


@contextmanager
def forks(imports: Sequence[str], environment: dict[str, str]) -> Iterator[Forks]:
    """Start the process that has made the *imports*; end it on leaving."""
    command = [sys.executable, __file__, *imports]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdin=pipe, stdout=pipe, text=True
    ) as process:
        yield Forks(process)
        process.communicate()


def serve() -> None:
    for line in sys.stdin:
        with TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
            child = os.fork()
            if child == 0:
                run(output, errors, *json.loads(line))
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            output.seek(0)
            errors.seek(0)
            print(json.dumps([code, output.read(), errors.read()]), flush=True)


def run(
    output: IO[str],
    errors: IO[str],
    module: str,
    home: str,
    environment: dict[str, str],
) -> None:
    signal.alarm(PATIENCE)
    os.dup2(output.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    os.chdir(home)
    os.environ.update(environment)
    sys.argv[1:] = []
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    del sys.path[0]  # tests/support, where modules have the names of packages
    for name in sys.argv[1:]:
        import_module(name)
    serve()
