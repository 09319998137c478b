"""What mypy and pyright know of the errors; never run.

Each `type: ignore` is a mistake that mypy has to find: an unused one is an error.
"""

from typing import assert_type

from unitwork import (
    BlockingSessionWarning,
    CommitUnknownError,
    MissingSessionError,
    PoolTimeoutError,
    SessionEndedError,
    UnexpectedRollbackError,
    UnitworkError,
    UsageError,
    __version__,
)

roots: list[type[UnitworkError]] = [
    CommitUnknownError,
    MissingSessionError,
    PoolTimeoutError,
    SessionEndedError,
    UnexpectedRollbackError,
    UsageError,
]
misuse: list[type[UsageError]] = [MissingSessionError, SessionEndedError]
wrong: RuntimeError = UsageError("do it otherwise")
late: TimeoutError = PoolTimeoutError("busy", retry_after=0.5)
warning: UserWarning = BlockingSessionWarning()

error = PoolTimeoutError("busy")
assert_type(error.retry_after, float)
PoolTimeoutError("busy", 0.5)  # type: ignore[call-arg]
PoolTimeoutError()  # type: ignore[call-arg]

version: str = __version__
