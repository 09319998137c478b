"""Every error and warning of unitwork.

```text
UnitworkError
├── UsageError (RuntimeError)          the program uses unitwork wrongly
│   ├── MissingSessionError            no unit of work here
│   ├── SessionEndedError              the unit of work has ended
│   └── ReadOnlyError                  a read-only unit has tried to write
├── UnexpectedRollbackError            the work was rolled back, unnoticed
├── CommitUnknownError                 the connection broke while COMMIT was under way
├── PartialCommitError                 one database has committed, another one has not
├── DeadlineExceededError (TimeoutError)  the request took too long
├── PoolTimeoutError (TimeoutError)    no connection became free in time
└── DatabaseUnavailableError           the database has not answered
```
"""

from __future__ import annotations

__all__ = [
    "BlockingSessionWarning",
    "CommitUnknownError",
    "DatabaseUnavailableError",
    "DeadlineExceededError",
    "MissingSessionError",
    "OutsideCallWarning",
    "PartialCommitError",
    "PoolTimeoutError",
    "ReadOnlyError",
    "SessionEndedError",
    "SessionStateWarning",
    "UnexpectedRollbackError",
    "UnitworkError",
    "UsageError",
]


class UnitworkError(Exception):
    """The base class of all errors of unitwork.

    .. versionadded:: 0.1
    """


class UsageError(UnitworkError, RuntimeError):
    """The program uses unitwork wrongly; the message says what to write instead.

    .. versionadded:: 0.1
    """


class MissingSessionError(UsageError):
    """There is no unit of work here: no middleware, and no `transaction()` block.

    .. versionadded:: 0.1
    """


class SessionEndedError(UsageError):
    """The unit of work to which this session belongs has ended.

    Its transaction has been committed or rolled back, and the client has the answer.
    Later writes could only be lost, so they are refused.

    .. versionadded:: 0.1
    """


class ReadOnlyError(UsageError):
    """A read-only unit has tried to write, and the database has refused.

    `__cause__` is the database's error; there is none where unitwork itself refused,
    because of `isolation_level="AUTOCOMMIT"`.

    .. versionadded:: 0.1
    """


class UnexpectedRollbackError(UnitworkError):
    """The work of this unit was rolled back, and the code did not notice.

    Raised because a success would be false. `__cause__` is the error that was caught
    and not raised again, if there was one: a shutdown also rolls back units that do not
    end in time.

    .. versionadded:: 0.1
    """


class CommitUnknownError(UnitworkError):
    """The connection was lost while COMMIT was under way: the outcome is unknown.

    `__cause__` is the driver's error. Check before trying again: it may be stored.
    Also raised if SQL or the driver's connection has ended the transaction; then there
    is no `__cause__`.

    .. versionadded:: 0.1
    """


class PartialCommitError(UnitworkError):
    """Of several databases some have committed, and then the COMMIT of another failed.

    The same for a session with several engines.

    *committed*, *rolled_back* and *unknown* are their names, each in the order of the
    commits. `__cause__` is the driver's error. Don't try again: a part is stored.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        message: str,
        *,
        committed: tuple[str, ...],
        rolled_back: tuple[str, ...] = (),
        unknown: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.committed = committed
        self.rolled_back = rolled_back
        self.unknown = unknown


class DeadlineExceededError(UnitworkError, TimeoutError):
    """The request took longer than its `deadline`, and was rolled back.

    .. versionadded:: 0.1
    """


class PoolTimeoutError(UnitworkError, TimeoutError):
    """No connection of the pool became free in time.

    *retry_after*, in seconds, is a hint for the client (`Retry-After`).

    .. versionadded:: 0.1
    """

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DatabaseUnavailableError(UnitworkError):
    """A database has not answered `ping()`, or the check at startup.

    The message names it, without its password; `__cause__` is the driver's error, if
    there was one. It is answered with 503, as other errors of an outage.

    .. versionadded:: 0.2
    """


class BlockingSessionWarning(UserWarning):
    """A sync session was used on the event loop's own thread, which it blocks.

    .. versionadded:: 0.1
    """


class OutsideCallWarning(UserWarning):
    """Another service was called while a unit held a transaction.

    Only in a block of `unitwork.testing.detect_outside_calls("warn")`.

    .. versionadded:: 0.2
    """


class SessionStateWarning(UserWarning):
    """A unit has left settings, locks or temporary tables on a pooled connection.

    They outlive the transaction, so the connection is dropped.

    .. versionadded:: 0.2
    """
