"""Events: what happens to units of work, and to the connections of their databases.

`db.observe(observer)` lets an `Observer` get them. All are frozen. Times are seconds;
`at` is by `time.monotonic()`.

.. versionadded:: 0.2
"""

from ._observing.event import Event, Observer, PoolEvent, UnitEvent
from ._observing.failure_log import FailureLog
from ._observing.pool_events import (
    ConnectionCheckedIn,
    ConnectionClosed,
    ConnectionOpened,
    WaitEnded,
    WaitStarted,
)
from ._observing.subjects import CallSite, ConnectionUse, UnitInfo, UnitKind
from ._observing.unit_events import (
    CommitAnswered,
    CommitSent,
    ConnectionReturned,
    ConnectionTaken,
    HoldWarning,
    HookFailed,
    OutcomeVerified,
    OutsideEntered,
    OutsideLeft,
    ResponseCompleted,
    ResponseStarted,
    StatementExecuted,
    TransactionBegun,
    UnitBegun,
    UnitEnded,
    UnitRetried,
    UnitSettled,
)

__all__ = [
    "CallSite",
    "CommitAnswered",
    "CommitSent",
    "ConnectionCheckedIn",
    "ConnectionClosed",
    "ConnectionOpened",
    "ConnectionReturned",
    "ConnectionTaken",
    "ConnectionUse",
    "Event",
    "FailureLog",
    "HoldWarning",
    "HookFailed",
    "Observer",
    "OutcomeVerified",
    "OutsideEntered",
    "OutsideLeft",
    "PoolEvent",
    "ResponseCompleted",
    "ResponseStarted",
    "StatementExecuted",
    "TransactionBegun",
    "UnitBegun",
    "UnitEnded",
    "UnitEvent",
    "UnitInfo",
    "UnitKind",
    "UnitRetried",
    "UnitSettled",
    "WaitEnded",
    "WaitStarted",
]
