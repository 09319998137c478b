"""Several servers that are started and stopped one by one, under one shell.

They run as `private_server` runs its one server: as an account that may do little, in
a folder of their own, and ended by their parent shell however this process ends.
"""

import os
import shlex
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from .host import Account, ServerError, private_folder, server_account

# It runs the lines that it reads, and answers each with one line. At the end of its
# input it stops its children and removes the folder.
SUPERVISOR = """
home=$1 signals=$2
trap 'rm -rf "$home"' EXIT
while IFS= read -r line; do eval "$line"; done
jobs -p >"$home/running"
for server in $(cat "$home/running"); do
    for each in CONT $signals; do kill -$each $server; done
done 2>/dev/null
wait
"""


class Supervisor:
    """Runs commands and servers in the folder `home`.

    *signals* stop a server at once, one after the other. *account* runs all; by
    default one that may do little.
    """

    def __init__(
        self, name: str, *, signals: str, account: Account | None = None
    ) -> None:
        self.account = server_account() if account is None else account
        self._folder = private_folder(name, self.account)
        self._signals = signals
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.home: Path = self._folder.__enter__()
        self._shell = subprocess.Popen(
            ["sh", "-c", SUPERVISOR, "supervisor", self.home, self._signals],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.home,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,  # Ctrl-C is for the command, not for the servers
            **self.account._asdict(),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A line, then the end of file: a forked child may hold the pipe open.
        self._shell.communicate("break\n")
        self._folder.__exit__(kind, error, traceback)

    def run(self, *command: object) -> None:
        """Run *command* and wait for its end; raises `ServerError` when it fails."""
        if self._request(f"{self._quoted(command)}; echo $?") != "0":
            raise ServerError(f"{command[0]} failed:\n{self.log()}")

    def start(self, *command: object) -> int:
        """Start a server; gives its process id."""
        return int(self._request(f"{self._quoted(command)} & echo $!"))

    def is_running(self, process: int) -> bool:
        """Whether the server *process*, which it has started, has not ended."""
        return self._request(f"kill -0 {process} 2>/dev/null; echo $?") == "0"

    def wait(self, process: int) -> None:
        """Wait until the server *process* has ended."""
        self._request(f"wait {process} 2>/dev/null; echo $?")

    def log(self) -> str:
        """The last 3,000 characters that the commands and servers have written."""
        return (self.home / "log").read_text(errors="replace")[-3000:]

    def _quoted(self, command: tuple[object, ...]) -> str:
        words = shlex.join(str(each) for each in command)
        return f"{words} </dev/null >>log 2>&1"

    def _request(self, line: str) -> str:
        requests, answers = self._pipes()
        with self._lock:
            requests.write(f"{line}\n")
            requests.flush()
            if answer := answers.readline().strip():
                return answer
        raise ServerError("the supervisor of the servers has ended")

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        return self._shell.stdin, self._shell.stdout
