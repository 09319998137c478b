"""The errors for what a sandbox can't show: what was done, and by which unit. Pure."""

from __future__ import annotations

from .._sql.sql_text import shortened
from .failure import SandboxError, use_real_mode
from .turn import Turn

__all__ = [
    "committed_inside_rollback",
    "connection_lost",
    "constraint_of_two",
    "constraints_set_around",
    "escaped",
    "uncommitted_changes",
    "write_inside_read_only",
]


def write_inside_read_only(outer: Turn, inner: Turn) -> SandboxError:
    return use_real_mode(
        f"{outer.name()} only reads (read_only=True), and {inner.name()} inside it, "
        "which has a transaction of its own, may write"
    )


def committed_inside_rollback(outer: Turn, inner: str) -> SandboxError:
    return use_real_mode(
        f"{outer.name()} was rolled back, and {inner} inside it, which had a "
        "transaction of its own, was committed before: that would be kept"
    )


def constraint_of_two(inner: Turn, outer: Turn) -> SandboxError:
    return use_real_mode(
        f"a deferred constraint does not hold at the COMMIT of {inner.name()}, perhaps "
        f"because of what {outer.name()} around it has not committed: they are checked "
        "together"
    )


def constraints_set_around(inner: Turn, outer: Turn) -> SandboxError:
    return use_real_mode(
        f"{outer.name()} has executed SET CONSTRAINTS, which the COMMIT of "
        f"{inner.name()} inside it would undo"
    )


def uncommitted_changes(own: str, other: Turn) -> SandboxError:
    return SandboxError(
        f"{own} has changes that are not committed, and {other.name()} could not see "
        "them, and might wait for their locks: call its `commit()` before"
    )


def connection_lost(turn: Turn | None) -> SandboxError:
    return use_real_mode(
        f"the connection was lost, or aborted by a cancellation, while {_name(turn)} "
        "had it, and all that the test has done with it"
    )


def escaped(turn: Turn | None) -> SandboxError:
    last = "" if turn is None else turn.last_statement
    what = f" (its last statement: {shortened(last)!r})" if last else ""
    return SandboxError(
        f"{_name(turn)} has ended the transaction of the sandbox{what}: by COMMIT or "
        "ROLLBACK as SQL or through the driver's connection, or by a statement that "
        "commits implicitly. What came before is in the database now, or lost. Use "
        "`session.commit()`, or the real mode"
    )


def _name(turn: Turn | None) -> str:
    return "something" if turn is None else turn.name()
