"""The members that `Database` and `AsyncDatabase` share."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from .._session.database_core import DatabaseCore, PoolStatus
from ..errors import UsageError
from ..options import NO_OPTIONS, BeginOptions, TransactionOptions
from ..retry import RetryPolicy, Tries
from ..settings import DatabaseSettings
from .context import innermost
from .no_attribute import no_attribute

__all__ = [
    "DatabaseBase",
    "awaitable",
    "core_of",
    "finished",
    "options_given",
    "tries_for",
]

T = TypeVar("T")


class DatabaseBase:
    """The members that are neither sync nor async."""

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

    def pool_status(self) -> PoolStatus:
        """Return how many connections are in use, idle and waited for. No I/O."""
        return self._core.pool_status()

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
    return Tries(policy or RetryPolicy(), attempts)


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
