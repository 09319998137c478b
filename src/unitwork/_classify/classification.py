"""What an error means for its transaction: by phase, connection and code.

The class alone is not enough: asyncpg's serialization failures are plain `DBAPIError`s,
and COMMIT on a broken connection raises the same as any other statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from traceback import walk_tb

from sqlalchemy import exc
from sqlalchemy.orm.exc import StaleDataError

from .._callables import returned_plainly
from ..errors import (
    CommitUnknownError,
    PartialCommitError,
    PoolTimeoutError,
    UnexpectedRollbackError,
)
from .chains import chain
from .driver_errors import ErrorContents, read
from .error_codes import DEMOTED, READ_ONLY, STALE, SYMPTOMS, Kind, Row, meaning

__all__ = [
    "STALE",
    "Classification",
    "Kind",
    "Phase",
    "Rule",
    "classify",
    "only_follows",
]

_DATABASES = ("sqlalchemy.dialects", "sqlalchemy.engine", "sqlalchemy.pool")
_NOT_OURS = Row(Kind.NEVER, "not an error of a database")
_UNLISTED = Row(Kind.NEVER, "an error that would happen again, as far as is known")
_NO_CONNECTION = Row(Kind.RECONNECT, "no connection could be made")
_LOST = Row(Kind.RECONNECT, "the connection is lost, and the transaction with it")
_LIMIT = Row(Kind.TIMEOUT, "a time limit was exceeded")
_IN_DOUBT = Row(Kind.UNKNOWN, "the connection was lost before COMMIT was acknowledged")
_PARTIAL = Row(Kind.UNKNOWN, "one database has committed, and another has not")
_POOL = Row(Kind.UNAVAILABLE, "every connection of the pool is in use")
_OUTRUN = Row(Kind.RETRY_WITH_CARE, "the row was changed or deleted meanwhile")
_SWALLOWED = Row(Kind.DOOMED, "an earlier error was swallowed", poisons=True)


class Phase(Enum):
    """What was in progress when the error was raised.

    .. versionadded:: 0.1
    """

    CONNECT = "connect"
    STATEMENT = "statement"
    """Inside a transaction, before COMMIT was sent."""
    COMMIT = "commit"
    """Also a statement outside any transaction, which is committed at once."""
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What an error means for its transaction.

    *code* is the SQLSTATE or the number that the driver had, *family* the kind of
    database: `"postgresql"`, `"mysql"` (also MariaDB), `"sqlite"`; `None` for another
    driver, and both if the error is of no driver. *reason* is for people. *error* is
    the exception that was classified, maybe a cause of the one given.

    *poisons*: the database has, or may have, rolled the whole transaction back by
    itself (PostgreSQL: back to the last savepoint), so that COMMIT must not be tried.
    *disconnected*: the connection has ended, or was never made.

    .. versionadded:: 0.1
    """

    kind: Kind
    phase: Phase
    code: str | int | None = None
    family: str | None = None
    reason: str
    poisons: bool = False
    disconnected: bool = False
    error: BaseException = field(repr=False, compare=False)

    @property
    def retryable(self) -> bool:
        """Whether the whole transaction may be run again by default.

        It has stored nothing. Start from its first statement, with a new session, a
        bounded number of times.
        """
        return self.kind in (Kind.RETRY, Kind.RECONNECT)

    @property
    def unknown(self) -> bool:
        """Whether the work may be stored: find out before trying again."""
        return self.kind is Kind.UNKNOWN


Rule = Callable[[Classification], Kind | None]
"""Given a classification, returns another `Kind`, or `None` to agree.

.. versionadded:: 0.1
"""


def classify(
    error: BaseException,
    *,
    phase: Phase = Phase.STATEMENT,
    rules: Iterable[Rule] = (),
) -> Classification:
    """Return what *error* means for the transaction in which it was raised.

    Give `Phase.COMMIT` for what COMMIT raised: a connection lost there leaves the
    outcome unknown. The database's error may also be behind *error*: wrapped by
    SQLAlchemy or by an exception group of one, its cause, or its context unless that
    is suppressed (`raise … from None`).

    The first of *rules* that returns a kind decides. They are not called when the
    outcome is unknown. Only they can raise: an unknown error is `Kind.NEVER`.

    .. versionadded:: 0.1
    """
    found = _classify(error, phase)
    if found.unknown:
        return found
    for rule in rules:
        kind = rule(found)
        if kind is not None:
            returned_plainly("a rule", kind, Kind)
            return replace(found, kind=kind, reason=f"a rule: {found.reason}")
    return found


def _classify(error: BaseException, phase: Phase) -> Classification:
    if phase is Phase.COMMIT and not isinstance(error, Exception):  # cancelled
        return _without_driver(_IN_DOUBT, phase, error)
    symptom: Classification | None = None
    for link in chain(error):
        found = _classify_link(link, phase)
        if found is None:
            continue
        if not _is_symptom(found):
            return found if symptom is None else replace(found, poisons=True)
        symptom = symptom or found
        phase = Phase.STATEMENT  # the errors before it were raised before COMMIT
    return symptom or _without_driver(_NOT_OURS, phase, error)


def _is_symptom(found: Classification) -> bool:
    """Whether an earlier error, if there is one, is the cause."""
    return found.kind is Kind.DOOMED and (found.family, found.code) in SYMPTOMS


def only_follows(error: BaseException) -> bool:
    """Whether *error* only reports that an earlier one aborted the transaction."""
    links = (_classify_link(link, Phase.STATEMENT) for link in chain(error))
    found = next((each for each in links if each is not None), None)
    return found is not None and _is_symptom(found)


def _classify_link(error: BaseException, phase: Phase) -> Classification | None:
    """Classify one link of the chain; `None` to go on with the next."""
    match error:
        case CommitUnknownError():
            return _in_doubt(error)
        case PartialCommitError():  # whatever its cause is: a part is stored
            return _without_driver(_PARTIAL, Phase.COMMIT, error)
        case UnexpectedRollbackError() | exc.PendingRollbackError():
            return _without_driver(_SWALLOWED, phase, error)
        case PoolTimeoutError() | exc.TimeoutError():
            return _without_driver(_POOL, phase, error)
        case StaleDataError():
            return _without_driver(_OUTRUN, phase, error)
        case exc.DBAPIError(orig=BaseException() as orig):
            contents = read(orig) or ErrorContents(orig)
            lost = contents.disconnected or error.connection_invalidated
            contents = contents._replace(disconnected=lost)
            return _classify_contents(contents, _refine_by_traceback(phase, error))
        case exc.DisconnectionError():
            return _classify_contents(ErrorContents(error, disconnected=True), phase)
        case OSError() if error.filename is None:  # asyncpg's are not wrapped
            return _of_system(error, _refine_by_traceback(phase, error))
    if (found := read(error)) is None:
        return None
    return _classify_contents(found, _refine_by_traceback(phase, error))


def _in_doubt(error: CommitUnknownError) -> Classification:
    """Classify an error that means that itself, with the code of its cause."""
    cause = None if error.__cause__ is error else error.__cause__
    found = _classify_link(cause, Phase.COMMIT) if cause is not None else None
    if found is not None and found.unknown:
        return found
    return _without_driver(_IN_DOUBT, Phase.COMMIT, error, disconnected=True)


def _classify_contents(found: ErrorContents, phase: Phase) -> Classification:
    row = meaning(found.family, found.code, found.text)
    lost = found.disconnected or (row is not None and row.disconnects)
    row = _refine_by_phase(row, phase, lost, coded=found.code is not None)
    poisons = (
        row.poisons or lost or (found.family == "postgresql" and found.from_server)
    )
    return Classification(
        kind=row.kind,
        phase=phase,
        code=found.code,
        family=found.family,
        reason=row.reason,
        poisons=poisons and phase is not Phase.CONNECT and row.kind is not Kind.UNKNOWN,
        disconnected=lost or phase is Phase.CONNECT,
        error=found.error,
    )


def _refine_by_phase(row: Row | None, phase: Phase, lost: bool, *, coded: bool) -> Row:
    """Return what the code means in this phase, on this connection."""
    if lost and (phase is Phase.COMMIT or row is READ_ONLY):
        return _IN_DOUBT if phase is Phase.COMMIT else DEMOTED
    if row is not None:
        return row
    if phase is Phase.CONNECT and (lost or not coded):
        return _NO_CONNECTION
    return _LOST if lost else _UNLISTED


def _of_system(error: OSError, phase: Phase) -> Classification | None:
    """Classify an error of the network, if it is of the connection to the database."""
    if phase is Phase.STATEMENT:
        if isinstance(error, TimeoutError):
            return _without_driver(_LIMIT, phase, error)
        if not _passed_through(error, _DATABASES):
            return None  # maybe of another server that the application called
    return _classify_contents(ErrorContents(error, disconnected=True), phase)


def _refine_by_traceback(phase: Phase, error: BaseException) -> Phase:
    """Find out from the traceback whether the statement had no connection yet."""
    if phase is Phase.STATEMENT and _passed_through(
        error, "sqlalchemy.pool", "_checkout"
    ):
        return Phase.CONNECT
    return phase


def _passed_through(
    error: BaseException, modules: str | tuple[str, ...], function: str | None = None
) -> bool:
    for frame, _ in walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__", "")).startswith(modules) and (
            function in (None, frame.f_code.co_name)
        ):
            return True
    return False


def _without_driver(
    row: Row, phase: Phase, error: BaseException, *, disconnected: bool = False
) -> Classification:
    """Classify an error that is not a driver's."""
    return Classification(
        kind=row.kind,
        phase=phase,
        reason=row.reason,
        poisons=row.poisons,
        disconnected=disconnected,
        error=error,
    )
