"""One server among several: its files, its process, its signals."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from .host import ServerError, free_port
from .supervisor import Supervisor


class ServerProcess:
    """A server with files of its own, whose port stays the same.

    Methods return when what they are for has happened; they raise `ServerError` when it
    does not happen.
    """

    def __init__(self, supervisor: Supervisor, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.data = supervisor.home / name
        self._supervisor = supervisor
        self._process = 0

    @property
    def is_running(self) -> bool:
        """Whether it was started, and has not been ended since."""
        return self._process != 0

    def copy_from(self, template: Path) -> None:
        """Take the files of *template* in place of its own; it must not run."""
        self._supervisor.run("rm", "-rf", self.data)
        self._supervisor.run("cp", "-a", template, self.data)

    def begin_start(self) -> None:
        """Start it; several start side by side."""
        raise NotImplementedError

    def wait_until_ready(self) -> None:
        """Wait until it accepts connections."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        self.begin_start()
        self.wait_until_ready()

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop its processes, as a host does that hangs: connections stay open."""
        for process in self._processes():
            _send(process, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server continue."""
        for process in reversed(self._processes()):
            _send(process, signal.SIGCONT)

    def _processes(self) -> list[int]:
        """The server's own process first, then those that it has started."""
        return [self._process] if self.is_running else []

    def _end(self, number: signal.Signals) -> None:
        if self.is_running:
            self.thaw()
            os.kill(self._process, number)
            self._supervisor.wait(self._process)
            self._process = 0

    def _wait_until(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Wait until *condition*; else raise `ServerError`, with *otherwise*."""
        deadline = time.monotonic() + 60
        while not condition():
            log = self._supervisor.log
            if not self._supervisor.is_running(self._process):
                self._process = 0
                raise ServerError(f"{self.name} has ended:\n{log()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} {otherwise} after 60 seconds:\n{log()}")
            time.sleep(0.02)


def _send(process: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)
