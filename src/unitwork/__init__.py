"""One database unit of work for each request: committed before a success response."""

from ._asgi.route_options import Defaults
from ._classify.classification import Classification, Kind, Phase, Rule, classify
from ._session.connection_limit import ConnectionLimit, connection_limit
from ._session.database_core import PoolStatus
from ._transaction.commit_status import CommitVerifier
from ._transaction.log_position import LogPositionVerifier
from ._unit.context import current_unit
from ._unit.unit_of_work import UnitOfWork
from .async_database import AsyncDatabase
from .database import Database
from .endpoints import transactional
from .errors import (
    BlockingSessionWarning,
    CommitUnknownError,
    DatabaseUnavailableError,
    DeadlineExceededError,
    MissingSessionError,
    OutsideCallWarning,
    PartialCommitError,
    PoolTimeoutError,
    ReadOnlyError,
    SessionEndedError,
    SessionStateWarning,
    UnexpectedRollbackError,
    UnitworkError,
    UsageError,
)
from .middleware import DBSessionMiddleware
from .options import TransactionOptions
from .outcome import CommitWhen, Ending, Outcome, succeeded
from .recovery import Recovered, arecover, recover
from .retry import Retry, RetryPolicy
from .settings import DatabaseSettings

__version__ = "0.1.0"

__all__ = [
    "AsyncDatabase",
    "BlockingSessionWarning",
    "Classification",
    "CommitUnknownError",
    "CommitVerifier",
    "CommitWhen",
    "ConnectionLimit",
    "DBSessionMiddleware",
    "Database",
    "DatabaseSettings",
    "DatabaseUnavailableError",
    "DeadlineExceededError",
    "Defaults",
    "Ending",
    "Kind",
    "LogPositionVerifier",
    "MissingSessionError",
    "Outcome",
    "OutsideCallWarning",
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
    "SessionStateWarning",
    "TransactionOptions",
    "UnexpectedRollbackError",
    "UnitOfWork",
    "UnitworkError",
    "UsageError",
    "arecover",
    "classify",
    "connection_limit",
    "current_unit",
    "recover",
    "succeeded",
    "transactional",
]
