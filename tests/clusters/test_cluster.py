"""`make cluster`: the example application over servers that are paused and promoted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from support.manual import ROOT


class Typed:
    """The command, and what it answers to what is typed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.addresses = [
            urlsplit(word) for word in self.read().split() if "://127" in word
        ]

    def type(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\nhelp\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> str:
        """All that it says up to the end of its list of commands."""
        assert self.process.stdout is not None
        lines: list[str] = []
        while not lines or "this list" not in lines[-1]:
            lines.append(self.process.stdout.readline())
            assert lines[-1], "".join(lines)
        return "".join(lines)


@pytest.fixture(scope="module")
def typed() -> Iterator[Typed]:
    with subprocess.Popen(
        [sys.executable, "tools/cluster.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Typed(process)
        process.kill()


def test_pauses_and_promotes_replicas_under_the_application(typed: Typed) -> None:
    typed.type("pause 0")
    typed.type("pause 1")
    assert "201" in typed.type("write")
    assert "Lamp" in typed.type("read")  # from the primary
    paused = typed.type("status")
    typed.type("resume 0")
    typed.type("resume 1")
    typed.type("failover")
    assert "201" in typed.type("write"), typed.type("log")
    typed.type("rejoin")

    assert "replica, paused, 0 items" in paused
    assert typed.type("status").count("2 items") == 3


def test_explains_what_it_does_not_know(typed: Typed) -> None:
    assert "there is no command stop" in typed.type("stop")
    assert "ValueError" in typed.type("pause primary")


def test_leaves_nothing_behind_after_ctrl_c(typed: Typed) -> None:
    typed.process.send_signal(signal.SIGINT)

    assert typed.process.wait(30) == 130
    for address in typed.addresses:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.hostname, address.port))
