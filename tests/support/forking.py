"""Real forks: work in a child process that is a copy of this one."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Child:
    """A forked process; `result()` waits for it, and returns what its work returned."""

    def __init__(self, pid: int, answer: int) -> None:
        self.pid = pid
        self._answer = answer

    def result(self) -> Any:
        with os.fdopen(self._answer, "rb") as answer:
            data = answer.read()
        _, status = os.waitpid(self.pid, 0)
        assert status == 0, f"the child has ended with status {status}"
        kind, value = pickle.loads(data)
        assert kind == "returned", value
        return value


def fork(work: Callable[[], Any]) -> Child:
    """Do *work* in a child process."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return Child(pid, read)
    try:
        answer = ("returned", work())
    except BaseException:
        answer = ("raised", traceback.format_exc())
    with os.fdopen(write, "wb") as channel:
        pickle.dump(answer, channel)
    os._exit(0)


class Steps:
    """Lets the parent of a fork say when its child may go on, and the reverse."""

    def __init__(self) -> None:
        self._pipes = [os.pipe(), os.pipe()]

    def child_goes_on(self) -> None:
        os.write(self._pipes[0][1], b".")

    def wait_in_child(self) -> None:
        os.read(self._pipes[0][0], 1)

    def parent_goes_on(self) -> None:
        os.write(self._pipes[1][1], b".")

    def wait_in_parent(self) -> None:
        os.read(self._pipes[1][0], 1)

    def close(self) -> None:
        for end in (*self._pipes[0], *self._pipes[1]):
            os.close(end)


@contextmanager
def steps() -> Iterator[Steps]:
    made = Steps()
    yield made
    made.close()
