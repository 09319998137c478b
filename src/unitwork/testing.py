"""For tests of applications: a COMMIT that fails on cue."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from .database import AsyncDatabase, Database
from .errors import UsageError
from .retry import waits

__all__ = ["CommitFault", "commit_faults", "no_waits"]


@contextmanager
def no_waits() -> Iterator[None]:
    """Let nobody wait between two attempts. Holds for all tasks and threads.

    .. versionadded:: 0.1
    """
    before, waits.on = waits.on, False
    try:
        yield
    finally:
        waits.on = before


class CommitFault(Enum):
    """How a COMMIT fails: in both ways the client can't tell which it was.

    .. versionadded:: 0.1
    """

    ROLLED_BACK = "rolled back"
    """The database rolls back, and then the connection is lost."""
    COMMITTED = "committed"
    """The database commits, and then the connection is lost."""


@contextmanager
def commit_faults(
    db: Database[Any] | AsyncDatabase[Any], *faults: CommitFault | Exception | None
) -> Iterator[None]:
    """Let the next COMMITs of *db* fail, each in its way; `None`: this one works.

    What is committed or rolled back is so for real; only the error is made up. An
    exception in place of a `CommitFault` is raised after a rollback, as the answer of a
    database that refuses. Later COMMITs work.

    Raises `AssertionError` at the end of the block if there were fewer COMMITs, and
    `UsageError` for anything else among the *faults*. Holds for all tasks and threads.

    .. versionadded:: 0.1
    """
    for fault in faults:
        if not isinstance(fault, CommitFault | Exception | None):
            raise UsageError(
                f"{fault!r} is no fault; give a CommitFault, an exception or None"
            )
    waiting = deque(faults)
    engines = db._source.factory.engines

    def commit(connection: Connection) -> None:
        fault = waiting.popleft() if waiting else None
        if fault is None:
            return
        driver = connection.connection
        if fault is CommitFault.COMMITTED:
            driver.commit()
        else:
            driver.rollback()
        if isinstance(fault, Exception):
            raise fault
        lost = ConnectionResetError(f"the connection was lost on cue: {fault.value}")
        raise OperationalError("COMMIT", None, lost, connection_invalidated=True)

    for engine in engines:
        event.listen(engine, "commit", commit)
    try:
        yield
    finally:
        for engine in engines:
            event.remove(engine, "commit", commit)
    if waiting:
        raise AssertionError(f"{len(waiting)} of {len(faults)} faults found no COMMIT")
