"""One database unit of work for each request: no client is told a lie about it."""

from ._classify.classification import Classification, Kind, Phase, Rule, classify
from ._current import current_unit
from ._ending import CommitWhen, Ending, Outcome, succeeded
from ._engine.commit_status import CommitVerifier
from ._routed import Defaults
from ._unit import UnitOfWork
from .database import AsyncDatabase, Database, PoolStatus
from .errors import (
    BlockingSessionWarning,
    CommitUnknownError,
    DeadlineExceededError,
    MissingSessionError,
    PartialCommitError,
    PoolTimeoutError,
    ReadOnlyError,
    SessionEndedError,
    UnexpectedRollbackError,
    UnitworkError,
    UsageError,
)
from .middleware import DBSessionMiddleware
from .options import DatabaseSettings, TransactionOptions, transactional
from .recovery import Recovered, arecover, recover
from .retry import Retry, RetryPolicy

__version__ = "0.1.0"

__all__ = [
    "AsyncDatabase",
    "BlockingSessionWarning",
    "Classification",
    "CommitUnknownError",
    "CommitVerifier",
    "CommitWhen",
    "DBSessionMiddleware",
    "Database",
    "DatabaseSettings",
    "DeadlineExceededError",
    "Defaults",
    "Ending",
    "Kind",
    "MissingSessionError",
    "Outcome",
    "PartialCommitError",
    "Phase",
    "PoolStatus",
    "PoolTimeoutError",
    "ReadOnlyError",
    "Recovered",
    "Retry",
    "RetryPolicy",
    "Rule",
    "SessionEndedError",
    "TransactionOptions",
    "UnexpectedRollbackError",
    "UnitOfWork",
    "UnitworkError",
    "UsageError",
    "arecover",
    "classify",
    "current_unit",
    "recover",
    "succeeded",
    "transactional",
]
