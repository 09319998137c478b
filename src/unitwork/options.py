"""The options of a transaction: frozen, checked when made."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypedDict

from ._callables import check_callable
from ._engine.begin import (
    AUTOCOMMIT,
    STATEMENT,
    TRANSACTION,
    Release,
    TransactionCharacteristics,
    check_release,
)
from .errors import UsageError
from .outcome import CommitWhen

__all__ = ["BeginOptions", "RouteOptions", "TransactionOptions"]

_LEVELS = (
    "SERIALIZABLE",
    "REPEATABLE READ",
    "READ COMMITTED",
    "READ UNCOMMITTED",
    "SNAPSHOT",
    AUTOCOMMIT,
)
_NOT_RELEASED = (
    "release='statement' and {0} exclude each other: a statement outside of a "
    "transaction has nothing of that. Leave one or the other out; if a router or the "
    "middleware has set one of them, set it again: release='transaction', "
    "isolation_level='READ COMMITTED', False, or math.inf"
)
MARK = "__unitwork_options__"
"""The attribute of an endpoint that has its `EndpointMark`."""


class BeginOptions(TypedDict, total=False):
    """The options that a transaction begins with, as keywords."""

    isolation_level: str | None
    read_only: bool | None
    deferrable: bool | None
    timeout: float | None
    lock_timeout: float | None
    release: Release | None
    replica: bool | None


class RouteOptions(BeginOptions, total=False):
    """All options of a request, as keywords."""

    deadline: float | None
    attempts: int | None
    commit_when: CommitWhen | None
    stream: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionOptions:
    """The options of one transaction; `None` leaves it to the router or middleware.

    A route's own options come before its router's, and these before the middleware's.
    Times are in seconds; `math.inf` is no limit. They hold for each transaction that
    the unit begins, and end with it: nothing is left on the connection.

    *isolation_level*: `"SERIALIZABLE"`, `"REPEATABLE READ"`, `"READ COMMITTED"`,
    `"READ UNCOMMITTED"`; or `"AUTOCOMMIT"`, which has no transaction: for reads.
    *read_only*: the database refuses to write: `ReadOnlyError`.
    *replica*: whether a transaction that only reads does so from a replica, where the
    database has some; by default it does. `True` makes no transaction *read_only*.
    *deferrable*: PostgreSQL, with `"SERIALIZABLE"` and *read_only*: wait for a snapshot
    in which nothing can fail.
    *timeout*: how long each statement may take, and *lock_timeout*, how long it may
    wait for a lock; then the database cancels it.
    *release*: `"statement"`: until it writes, the unit has a connection only while a
    SELECT is executed, outside of a transaction; not for statements that may do more.
    `"transaction"`: from the first statement to the end. The database has the default.
    *deadline*: how long the request may take, with all its attempts, once it uses a
    session: then it is rolled back, with a `DeadlineExceededError`. A COMMIT that has
    been sent is not interrupted.
    *attempts*: how often at most the request is run, after serialization failures and
    deadlocks. 1, the default, means: no retry.
    *commit_when*: whether to commit, as in `DBSessionMiddleware`.
    *stream*: keep the transaction open until the last chunk of the response, which then
    reads from one snapshot; it must not have written.

    Raises `UsageError` for values that are impossible, alone or together, and for a
    *commit_when* that is a coroutine function.

    .. versionadded:: 0.1
    """

    isolation_level: str | None = None
    read_only: bool | None = None
    deferrable: bool | None = None
    timeout: float | None = None
    lock_timeout: float | None = None
    release: Release | None = None
    replica: bool | None = None
    deadline: float | None = None
    attempts: int | None = None
    commit_when: CommitWhen | None = None
    stream: bool | None = None

    def __post_init__(self) -> None:
        self._check_level()
        for key in ("timeout", "lock_timeout", "deadline"):
            value = getattr(self, key)
            if value is not None and (
                not isinstance(value, int | float) or not value > 0
            ):
                raise UsageError(f"{key} is {value!r}; give seconds, more than 0")
        if self.attempts is not None and (
            not isinstance(self.attempts, int) or self.attempts < 1
        ):
            raise UsageError(f"attempts is {self.attempts!r}; give 1 or more")
        if self.commit_when is not None:
            check_callable("commit_when", self.commit_when)
        check_release(self.release)
        if self.release == STATEMENT and (needed := self.needs_transaction):
            raise UsageError(_NOT_RELEASED.format(needed))

    def _check_level(self) -> None:
        level = self.isolation_level
        if level is None:
            return
        known = level.upper().replace("_", " ") if isinstance(level, str) else level
        if known not in _LEVELS:
            raise UsageError(f"isolation_level is {level!r}; give one of {_LEVELS}")
        object.__setattr__(self, "isolation_level", known)
        late = [key for key in _OF_TRANSACTIONS if getattr(self, key)]
        if known == AUTOCOMMIT and late:
            raise UsageError(
                f"isolation_level is 'AUTOCOMMIT': there is no transaction for "
                f"{' and '.join(late)}; leave one or the other out"
            )

    @property
    def needs_transaction(self) -> str:
        """The option that holds for a whole transaction; empty if there is none."""
        level = self.isolation_level
        limits = {"timeout": self.timeout, "lock_timeout": self.lock_timeout}
        found = {
            "isolation_level": level not in (None, "READ COMMITTED"),
            "read_only": self.read_only,
            "deferrable": self.deferrable,
            **{key: limit not in (None, math.inf) for key, limit in limits.items()},
            "stream": self.stream,
        }
        key = next((key for key, is_set in found.items() if is_set), "")
        return key and f"{key}={getattr(self, key)!r}"

    def __or__(self, inner: TransactionOptions) -> TransactionOptions:
        """Merge: *inner* options, which are nearer, come first."""
        if inner is NO_OPTIONS:
            return self
        if self is NO_OPTIONS:
            return inner
        given = {key: x for key in _NAMES if (x := getattr(inner, key)) is not None}
        if given.get("isolation_level") == AUTOCOMMIT:  # no matter what is further out
            given = {**dict.fromkeys(_OF_TRANSACTIONS), **given}
        if inner.needs_transaction:
            given.setdefault("release", None if self.release is None else TRANSACTION)
        return replace(self, **given)

    def characteristics_of(self, default: Release | None) -> TransactionCharacteristics:
        """The same; *default*: the release mode that is not set here, but may be.

        `None`: there is no other mode than "transaction".
        """
        if self is NO_OPTIONS and default == STATEMENT:
            return _RELEASED
        release = self.release or (TRANSACTION if self.needs_transaction else default)
        release = TRANSACTION if default is None or release is None else release
        found = self.characteristics
        return found if found.release == release else found._replace(release=release)

    @property
    def characteristics(self) -> TransactionCharacteristics:
        """Those that a transaction begins with."""
        return TransactionCharacteristics(
            self.isolation_level,
            bool(self.read_only),
            bool(self.deferrable),
            self.timeout,
            self.lock_timeout,
            release=self.release or TRANSACTION,
            replica=self.replica,
        )


_OF_TRANSACTIONS = ("deferrable", "timeout", "lock_timeout")
_NAMES = tuple(field.name for field in fields(TransactionOptions))

NO_OPTIONS = TransactionOptions()
_RELEASED = TransactionCharacteristics(release=STATEMENT)


class EndpointMark:
    """What `@transactional` leaves on an endpoint: its options."""

    __slots__ = ("options", "reported_by")

    def __init__(self, options: TransactionOptions) -> None:
        self.options = options
        self.reported_by: object = None
        """The function that reports the options when it is called."""


class _RouteRetries:
    """Whether some route has more than one attempt: by which means."""

    by_endpoints = False
    by_routers = False


route_retries = _RouteRetries()
_NO_MARK = EndpointMark(NO_OPTIONS)


def mark_of(endpoint: object) -> EndpointMark:
    """Return what `@transactional` has left on *endpoint*, or an empty mark."""
    mark: EndpointMark = getattr(endpoint, MARK, _NO_MARK)
    return mark


def options_of(endpoint: Any, method: str) -> TransactionOptions:
    """The options of the *endpoint* of a request, by `@transactional`."""
    mark: EndpointMark = getattr(endpoint, MARK, _NO_MARK)
    options = mark.options
    if isinstance(endpoint, type):
        name = method.lower()
        if name == "head" and not hasattr(endpoint, name):
            name = "get"  # as Starlette does
        return options | mark_of(getattr(endpoint, name, None)).options
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
        options = mark_of(endpoint).options | options
    return options
