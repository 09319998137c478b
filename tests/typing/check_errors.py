"""What mypy and pyright know of the errors; never run.

Each `type: ignore` is a mistake that mypy has to find: an unused one is an error.
"""

from typing import assert_type

from unitwork import (
    BlockingSessionWarning,
    Classification,
    CommitUnknownError,
    DatabaseUnavailableError,
    Kind,
    MissingSessionError,
    OutsideCallWarning,
    PartialCommitError,
    Phase,
    PoolTimeoutError,
    Rule,
    SessionEndedError,
    SessionStateWarning,
    UnexpectedRollbackError,
    UnitworkError,
    UsageError,
    __version__,
    classify,
)

roots: list[type[UnitworkError]] = [
    CommitUnknownError,
    DatabaseUnavailableError,
    MissingSessionError,
    PartialCommitError,
    PoolTimeoutError,
    SessionEndedError,
    UnexpectedRollbackError,
    UsageError,
]
misuse: list[type[UsageError]] = [MissingSessionError, SessionEndedError]
wrong: RuntimeError = UsageError("do it otherwise")
late: TimeoutError = PoolTimeoutError("busy", retry_after=0.5)
warning: UserWarning = BlockingSessionWarning()
called: UserWarning = OutsideCallWarning()
left_behind: UserWarning = SessionStateWarning()

error = PoolTimeoutError("busy")
assert_type(error.retry_after, float)
PoolTimeoutError("busy", 0.5)  # type: ignore[call-arg]
PoolTimeoutError()  # type: ignore[call-arg]

part = PartialCommitError("part", committed=("orders",), unknown=("stock",))
assert_type(part.committed, tuple[str, ...])
assert_type(part.rolled_back, tuple[str, ...])
assert_type(part.unknown, tuple[str, ...])
PartialCommitError("part")  # type: ignore[call-arg]

version: str = __version__


def seldom(found: Classification) -> Kind | None:
    return Kind.RETRY if found.code == "55P03" else None


rule: Rule = seldom
found = classify(error, phase=Phase.COMMIT, rules=[rule])
assert_type(found, Classification)
assert_type(found.kind, Kind)
assert_type(found.code, str | int | None)
assert_type(found.retryable, bool)
assert_type(found.error, BaseException)
found.kind = Kind.NEVER  # type: ignore[misc]
classify("40001")  # type: ignore[arg-type]
classify(error, Phase.COMMIT)  # type: ignore[call-arg]
