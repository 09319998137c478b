"""The error for what a sandbox can't show, and how it reaches the test."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import UsageError

__all__ = ["CLOSED", "SandboxError", "report", "use_real_mode"]

CLOSED = "this sandbox is closed: its test is over"


class SandboxError(UsageError):
    """A sandbox can't be used as it was, or can't show what would happen.

    Raised where that is noticed, and again at the end of the sandbox, so that the test
    fails though the application has answered with a response.

    .. versionadded:: 0.2
    """


def use_real_mode(found: str) -> SandboxError:
    """Make the error for what only a real database can show."""
    return SandboxError(
        f"{found}. A sandbox can't show that: it has one connection, and a unit of "
        "work is a savepoint. Use the real mode: `sandbox(db, real=True)`, or "
        "`@pytest.mark.unitwork(real=True)`"
    )


def report(check: Callable[[], None], error: BaseException | None) -> None:
    """Raise what *check* of a sandbox raises; beside another *error* as its note."""
    try:
        check()
    except SandboxError as failure:
        if error is None:
            raise
        if failure is not error:
            error.add_note(f"the sandbox: {failure}")
