"""Every error and warning of unitwork.

```text
UnitworkError
├── UsageError (RuntimeError)          the program is wrong
│   ├── MissingSessionError            no unit of work here
│   └── SessionEndedError              the unit of work is over
├── UnexpectedRollbackError            the work was lost, and nobody had said so
├── CommitUnknownError                 the connection broke while COMMIT was under way
└── PoolTimeoutError (TimeoutError)    no connection became free in time
```
"""

from __future__ import annotations

__all__ = [
    "BlockingSessionWarning",
    "CommitUnknownError",
    "MissingSessionError",
    "PoolTimeoutError",
    "SessionEndedError",
    "UnexpectedRollbackError",
    "UnitworkError",
    "UsageError",
]


class UnitworkError(Exception):
    """The root: everything that unitwork raises by itself is one of these."""


class UsageError(UnitworkError, RuntimeError):
    """unitwork was used wrongly; the message says what to write instead."""


class MissingSessionError(UsageError):
    """There is no unit of work here: no middleware, and no `transaction()` block."""


class SessionEndedError(UsageError):
    """The unit of work to which this session belongs is over.

    Its transaction has been committed or rolled back, and the client has the answer.
    Whatever was written now could only be lost, so it is refused.
    """


class UnexpectedRollbackError(UnitworkError):
    """The work of this unit was lost although nobody asked for that.

    Raised in place of a success that would have been a lie. `__cause__` is the error
    that doomed the work and was swallowed on its way up, if there was one: a shutdown
    rolls back, too, what does not end in time.
    """


class CommitUnknownError(UnitworkError):
    """The connection was lost while COMMIT was under way: committed or not, who knows.

    `__cause__` is the driver's error. Don't try again blindly: the work may be stored.
    """


class PoolTimeoutError(UnitworkError, TimeoutError):
    """No connection of the pool became free in time.

    *retry_after*, in seconds, is a hint for the client (`Retry-After`).
    """

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BlockingSessionWarning(UserWarning):
    """A sync session was used on the event loop's own thread, which it blocks."""
