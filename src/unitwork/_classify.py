"""What an error means for its transaction: by phase, connection and code. Pure.

Never by the class alone: asyncpg's serialization failures are plain `DBAPIError`s, and
a COMMIT that met a broken connection raises what any statement would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from traceback import walk_tb

from sqlalchemy import exc
from sqlalchemy.orm.exc import StaleDataError

from ._codes import SYMPTOMS, Kind, Row, meaning
from ._driver import Reading, read
from .errors import (
    CommitUnknownError,
    PartialCommitError,
    PoolTimeoutError,
    UnexpectedRollbackError,
)

__all__ = [
    "Classification",
    "Kind",
    "Phase",
    "Rule",
    "classify",
    "lead_back",
    "only_follows",
]

_DATABASES = ("sqlalchemy.dialects", "sqlalchemy.engine", "sqlalchemy.pool")
_NOT_OURS = Row(Kind.NEVER, "not an error of a database")
_UNLISTED = Row(Kind.NEVER, "an error that would come again, as far as is known")
_NO_CONNECTION = Row(Kind.RECONNECT, "no connection could be made")
_LOST = Row(Kind.RECONNECT, "the connection is lost, and the transaction with it")
_LIMIT = Row(Kind.TIMEOUT, "a time limit was over")
_IN_DOUBT = Row(Kind.UNKNOWN, "nobody told how COMMIT ended")
_PARTIAL = Row(Kind.UNKNOWN, "one database has committed, and another has not")
_POOL = Row(Kind.UNAVAILABLE, "every connection of the pool is in use")

_OUTRUN = Row(Kind.RETRY_WITH_CARE, "the row was changed or deleted meanwhile")
_SWALLOWED = Row(Kind.DOOMED, "an earlier error was swallowed", poisons=True)


class Phase(Enum):
    """What was under way when the error came.

    .. versionadded:: 0.1
    """

    CONNECT = "connect"
    STATEMENT = "statement"
    """Inside a transaction, before COMMIT was sent."""
    COMMIT = "commit"
    """Also a statement outside any transaction, which commits itself."""
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What an error means for its transaction.

    *code* is the SQLSTATE or the number that the driver had, *family* the kind of
    database: `"postgresql"`, `"mysql"` (MariaDB, too), `"sqlite"`, `"mssql"`,
    `"oracle"`; both are `None` if no driver has spoken. *reason* is for people. *error*
    is the exception that told, maybe one deep inside the one that was asked about.

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
        """Whether the whole transaction may be tried again, without being asked to.

        It has stored nothing. Start from its first statement, with a fresh session, a
        bounded number of times.
        """
        return self.kind in (Kind.RETRY, Kind.RECONNECT)

    @property
    def unknown(self) -> bool:
        """Whether the work may be stored: look before trying again."""
        return self.kind is Kind.UNKNOWN


Rule = Callable[[Classification], Kind | None]
"""Says otherwise: given what the table says, another `Kind`, or `None` to agree.

.. versionadded:: 0.1
"""


def classify(
    error: BaseException,
    *,
    phase: Phase = Phase.STATEMENT,
    rules: Iterable[Rule] = (),
) -> Classification:
    """Say what *error* means for the transaction that it came out of.

    Give `Phase.COMMIT` for what COMMIT raised: a connection lost there leaves the
    outcome unknown. The database's error is looked for behind *error*, too: in what
    SQLAlchemy or an exception group of one wraps, in its cause, and in its context
    unless that is suppressed (`raise … from None`).

    The first of *rules* that gives a kind is obeyed. They are not asked when the
    outcome is unknown. Nothing else can raise here: what is not known is `Kind.NEVER`.

    .. versionadded:: 0.1
    """
    found = _classify(error, phase)
    if found.unknown:
        return found
    for rule in rules:
        kind = rule(found)
        if kind is not None:
            return replace(found, kind=kind, reason=f"a rule: {found.reason}")
    return found


def _classify(error: BaseException, phase: Phase) -> Classification:
    if phase is Phase.COMMIT and not isinstance(error, Exception):  # cancelled
        return _told(_IN_DOUBT, phase, error)
    symptom: Classification | None = None
    for link in _chain(error):
        found = _look(link, phase)
        if found is None:
            continue
        if not _is_symptom(found):
            return found if symptom is None else replace(found, poisons=True)
        symptom = symptom or found
        phase = Phase.STATEMENT  # what came before it came before COMMIT
    return symptom or _told(_NOT_OURS, phase, error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Give *error* and what is behind it, one after the other."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        if isinstance(link, BaseExceptionGroup):
            link = link.exceptions[0] if len(link.exceptions) == 1 else None
        elif isinstance(link, exc.DBAPIError) and link.orig is not None:
            link = link.orig
        elif link.__cause__ is not None or link.__suppress_context__:
            link = link.__cause__
        else:
            link = link.__context__


def _is_symptom(found: Classification) -> bool:
    """Whether an earlier error, if there is one, tells more."""
    return found.kind is Kind.DOOMED and (found.family, found.code) in SYMPTOMS


def only_follows(error: BaseException) -> bool:
    """Whether the database only says that an earlier error has cost the transaction."""
    looks = (_look(link, Phase.STATEMENT) for link in _chain(error))
    found = next((each for each in looks if each is not None), None)
    return found is not None and _is_symptom(found)


def lead_back(error: BaseException, earlier: BaseException) -> None:
    """Put *earlier* behind *error*, which lost its context between greenlets."""
    links = list(_chain(error))
    if earlier not in links:
        links[-1].__context__ = earlier


def _look(error: BaseException, phase: Phase) -> Classification | None:
    """Classify one link of the chain; `None` to look at the next."""
    match error:
        case CommitUnknownError():
            return _in_doubt(error)
        case PartialCommitError():  # whatever its cause was: a part is stored
            return _told(_PARTIAL, Phase.COMMIT, error)
        case UnexpectedRollbackError() | exc.PendingRollbackError():
            return _told(_SWALLOWED, phase, error)
        case PoolTimeoutError() | exc.TimeoutError():
            return _told(_POOL, phase, error)
        case StaleDataError():
            return _told(_OUTRUN, phase, error)
        case exc.DBAPIError(orig=BaseException() as orig):
            reading = read(orig) or Reading(orig)
            gone = reading.gone or error.connection_invalidated
            return _judge(reading._replace(gone=gone), _refine(phase, error))
        case exc.DisconnectionError():
            return _judge(Reading(error, gone=True), phase)
        case OSError() if error.filename is None:  # asyncpg's come as they are
            return _of_system(error, _refine(phase, error))
    found = read(error)
    return None if found is None else _judge(found, _refine(phase, error))


def _in_doubt(error: CommitUnknownError) -> Classification:
    """Classify what is unknown already, with the code of its cause."""
    cause = error.__cause__
    found = _look(cause, Phase.COMMIT) if cause is not None else None
    if found is not None and found.unknown:
        return found
    return _told(_IN_DOUBT, Phase.COMMIT, error, disconnected=True)


def _judge(found: Reading, phase: Phase) -> Classification:
    row = meaning(found.family, found.code, found.text)
    gone = found.gone or (row is not None and row.gone)
    row = _settle(row, phase, gone, coded=found.code is not None)
    poisons = (
        row.poisons or gone or (found.family == "postgresql" and found.from_server)
    )
    return Classification(
        kind=row.kind,
        phase=phase,
        code=found.code,
        family=found.family,
        reason=row.reason,
        poisons=poisons and phase is not Phase.CONNECT and row.kind is not Kind.UNKNOWN,
        disconnected=gone or phase is Phase.CONNECT,
        error=found.error,
    )


def _settle(row: Row | None, phase: Phase, gone: bool, *, coded: bool) -> Row:
    """Let the phase and the connection have their say on what the code means."""
    if gone and phase is Phase.COMMIT:
        return _IN_DOUBT
    if row is not None:
        return row
    if phase is Phase.CONNECT and (gone or not coded):
        return _NO_CONNECTION
    return _LOST if gone else _UNLISTED


def _of_system(error: OSError, phase: Phase) -> Classification | None:
    """Classify an error of the network, if it is that of the database."""
    if phase is Phase.STATEMENT:
        if isinstance(error, TimeoutError):
            return _told(_LIMIT, phase, error)
        if not _passed(error, _DATABASES):
            return None  # maybe another server's, that the application called
    return _judge(Reading(error, gone=True), phase)


def _refine(phase: Phase, error: BaseException) -> Phase:
    """Tell from the traceback that a statement had yet to be given its connection."""
    if phase is Phase.STATEMENT and _passed(error, "sqlalchemy.pool", "_checkout"):
        return Phase.CONNECT
    return phase


def _passed(
    error: BaseException, modules: str | tuple[str, ...], function: str | None = None
) -> bool:
    for frame, _ in walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__", "")).startswith(modules) and (
            function in (None, frame.f_code.co_name)
        ):
            return True
    return False


def _told(
    row: Row, phase: Phase, error: BaseException, *, disconnected: bool = False
) -> Classification:
    """Classify what needs no driver."""
    return Classification(
        kind=row.kind,
        phase=phase,
        reason=row.reason,
        poisons=row.poisons,
        disconnected=disconnected,
        error=error,
    )
