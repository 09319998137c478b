"""For tests of applications: sandboxes, assertions, hooks, COMMITs that fail."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import Any

from sqlalchemy.exc import OperationalError

from ._redaction import described
from ._sandbox.failure import SandboxError
from ._sandbox.opening import sandbox
from ._sandbox.sandbox import Sandbox
from ._testing.assertions import (
    assert_committed,
    assert_no_database,
    assert_queries,
    assert_rolled_back,
    capture_on_commit,
)
from ._testing.blocks import block
from ._testing.outside_calls import detect_outside_calls
from ._transaction.commit_events import CommitSender
from ._unit.database_base import core_of
from .database import AsyncDatabase, Database
from .errors import UsageError
from .retry import waits

__all__ = [
    "CommitFault",
    "Sandbox",
    "SandboxError",
    "assert_committed",
    "assert_no_database",
    "assert_queries",
    "assert_rolled_back",
    "capture_on_commit",
    "check_idle",
    "commit_faults",
    "detect_outside_calls",
    "no_waits",
    "sandbox",
]


SandboxError.__module__ = __name__  # where it is in tracebacks, and in pickles


@block
def no_waits() -> Iterator[None]:
    """Retry without waiting between two attempts, in all tasks and threads.

    .. versionadded:: 0.1
    """
    before, waits.on = waits.on, False
    try:
        yield
    finally:
        waits.on = before


class CommitFault(Enum):
    """How a COMMIT fails. The client can't distinguish the two.

    .. versionadded:: 0.1
    """

    ROLLED_BACK = "rolled back"
    """The database rolls back, and then the connection is lost."""
    COMMITTED = "committed"
    """The database commits, and then the connection is lost."""


@block
def commit_faults(
    db: Database[Any] | AsyncDatabase[Any], *faults: CommitFault | Exception | None
) -> Iterator[None]:
    """Let the next COMMITs of *db* fail, each in its way; `None`: this one works.

    The database really commits or rolls back; only the error is simulated. An exception
    in place of a `CommitFault` is raised after a rollback, as by a database that
    refuses. Later COMMITs work.

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
    with ExitStack() as stack:
        for sender in core_of(db).factory.commit_senders():
            stack.enter_context(_failing(sender, waiting))
        yield
    if waiting:
        raise AssertionError(f"{len(waiting)} of {len(faults)} faults found no COMMIT")


@contextmanager
def _failing(
    sender: CommitSender, waiting: deque[CommitFault | Exception | None]
) -> Iterator[None]:
    send = sender.send

    def fail(dbapi_connection: Any) -> None:
        fault = waiting.popleft() if waiting else None
        if fault is None or fault is CommitFault.COMMITTED:
            send(dbapi_connection)
        else:
            dbapi_connection.rollback()
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            lost = ConnectionResetError(
                f"the connection was lost on cue: {fault.value}"
            )
            raise OperationalError("COMMIT", None, lost, connection_invalidated=True)

    sender.send = fail
    try:
        yield
    finally:
        sender.send = send


def check_idle(*databases: Database[Any] | AsyncDatabase[Any]) -> None:
    """Raise `AssertionError` unless each of *databases* is idle.

    A database is idle when no connection is checked out of its pool, no unit of work is
    open, none waits for a connection, and no permit of the admission gate is held. Only
    the state of this process is read: no statement is sent, and nothing is waited for.
    Call it while the application still runs: its shutdown ends what was left open.

    Raises `UsageError` for anything that is no `Database` or `AsyncDatabase`.

    .. versionadded:: 0.2
    """
    for db in databases:
        if not isinstance(db, Database | AsyncDatabase):
            raise UsageError(
                f"{described(db)} is no database; give a Database or AsyncDatabase"
            )
        in_use = [f"{what}: {count}" for what, count in _in_use(db).items() if count]
        if in_use:
            raise AssertionError(
                f"database {db.name!r} is not idle: {', '.join(in_use)}"
            )


def _in_use(db: Database[Any] | AsyncDatabase[Any]) -> dict[str, int]:
    core, status = core_of(db), db.pool_status()
    gate = core.factory.gate
    return {
        "connections checked out": status.checked_out,
        "units of work open": len(core.open_units),
        "units of work waiting": status.waiting,
        "permits held": 0 if gate is None else gate.in_use,
    }
