"""The members that `Database` and `AsyncDatabase` share."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from .._observing.event import Event, Observer
from .._redaction import described
from .._replicas.replica import ReplicaStatus
from .._session.database_core import DatabaseCore, PoolStatus
from ..errors import UsageError
from ..options import NO_OPTIONS, BeginOptions, TransactionOptions
from ..retry import RetryPolicy, Tries, policy_of
from ..settings import DatabaseSettings
from .context import innermost, unit_of
from .missing_attribute import no_attribute

__all__ = [
    "DatabaseBase",
    "awaitable",
    "core_of",
    "finished",
    "options_given",
    "tries_for",
]

T = TypeVar("T")
S = TypeVar("S", default=Any)


class DatabaseBase(Generic[S]):
    """The members that are neither sync nor async; *S* is the class of the sessions."""

    def __init__(self, core: DatabaseCore) -> None:
        self._core = core

    @property
    def name(self) -> str:
        """The name of this database, in messages and on `request.state`."""
        return self._core.name

    @property
    def settings(self) -> DatabaseSettings:
        """The settings in force; frozen."""
        return self._core.settings

    @property
    def current(self) -> S:
        """The session of the unit of work around the caller, from anywhere below it.

        Raises `MissingSessionError` outside a unit, `SessionEndedError` after its end.
        """
        core = self._core
        return unit_of(core).session_of(core).session  # type: ignore[return-value]  # the factory's class

    def pool_status(self) -> PoolStatus:
        """Return how many connections are in use, idle and waited for. No I/O."""
        return self._core.pool_status()

    def observe(
        self,
        observer: Observer,
        *,
        only: Collection[type[Event]] | None = None,
        show_sql: bool = False,
    ) -> Callable[[], None]:
        """Let *observer* get the events of this database; return what ends that.

        Those of its units and of its pool, from now on: a unit that is open already
        is not observed, and one of several databases is reported once to an observer
        of them all. *only*: the kinds of event, of `unitwork.events`, or what they
        derive from; each kind costs time. *show_sql*: with the text of statements, in
        which an application may have put values.

        See `Observer` for how it is called. May be called at any time, by any thread.

        .. versionadded:: 0.2
        """
        if not callable(getattr(observer, "on_event", None)) or isinstance(
            observer, type
        ):
            raise UsageError(
                f"the observer is {described(observer)}; give an object with a method "
                "on_event(event)"
            )
        return self._core.observers.add(observer, only, shows_sql=show_sql)

    def replica_status(self) -> list[ReplicaStatus]:
        """Return the state of each replica, as it was last seen. No I/O.

        .. versionadded:: 0.2
        """
        return self._core.replica_status()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            found = getattr(type(self), name, None)
            if found is not None:  # a property: raise again what it has raised
                return found.__get__(self)
            raise no_attribute(type(self).__name__, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def core_of(database: DatabaseBase) -> DatabaseCore:
    return database._core  # pyright: ignore[reportPrivateUsage]  # of this module


def options_given(
    options: BeginOptions, attempts: int | None = None
) -> TransactionOptions:
    if unknown := options.keys() - BeginOptions.__annotations__.keys():
        raise UsageError(
            f"there is no option {', '.join(sorted(unknown))}; give one of "
            f"{', '.join(BeginOptions.__annotations__)}"
        )
    if attempts is None and not options:
        return NO_OPTIONS
    return TransactionOptions(**options, attempts=attempts)


def tries_for(attempts: int, policy: RetryPolicy | None) -> Tries:
    """Count the attempts: only one inside a unit that is itself retried."""
    around = innermost()
    if around is not None and around.is_in_a_retry:
        attempts = 1
    return Tries(policy_of(policy), attempts)


def awaitable(result: Awaitable[T], work: object) -> Awaitable[T]:
    """Return the *result* of *work*, of `AsyncDatabase.run()`, if it is awaitable."""
    if not inspect.isawaitable(result):
        raise UsageError(
            f"{work!r} is no coroutine function, and AsyncDatabase.run() awaits it; "
            "make it `async def`, or use Database for plain functions"
        )
    return result


def finished(result: T, work: object) -> T:
    """Return the *result* of *work*, of `Database.run()`, unless it is awaitable."""
    if not inspect.isawaitable(result):
        return result
    if inspect.iscoroutine(result):
        result.close()
    raise UsageError(
        f"{work!r} is a coroutine function, and Database.run() can't await it; give a "
        "plain function, or use AsyncDatabase"
    )
