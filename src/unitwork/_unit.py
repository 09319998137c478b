"""The unit of work: the sessions, hooks and decision of one piece of work."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, ParamSpec

from ._ending import Outcome
from ._hooks import Hook, Hooks, enclosing
from ._plan import Plan, finish
from .errors import (
    CommitUnknownError,
    MissingSessionError,
    SessionEndedError,
    UnexpectedRollbackError,
    UsageError,
)

if TYPE_CHECKING:
    from ._session import Lease
    from ._source import Source

__all__ = ["UnitOfWork", "current", "current_unit", "unit_of", "unit_of_request"]

P = ParamSpec("P")

current: ContextVar[UnitOfWork | None] = ContextVar("unitwork", default=None)
"""Set before the application is called, and never read back from what it set."""


class UnitOfWork:
    """The sessions, hooks and decision of one piece of work.

    Made by the middleware for each request and by `transaction()` for each block, never
    by hand. Belongs to one request: its methods may be called from the tasks and
    threads of that request, but not by two of them at once.

    .. versionadded:: 0.1
    """

    __slots__ = (
        "__weakref__",
        "_commit_anyway",
        "_doomed",
        "_ended",
        "_hooks",
        "_leases",
        "_may_write",
        "_parent",
        "_poison",
        "_sources",
        "_sync",
        "outcome",
        "reason",
    )

    outcome: Outcome | None
    """What became of the unit; `None` while it is under way."""
    reason: str
    """Why: in words, for logs."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        may_write: bool = True,
        sync: bool = False,
        parent: UnitOfWork | None = None,
    ) -> None:
        self._sources = sources
        self._may_write = may_write
        self._sync = sync
        self._parent = parent
        self._leases: dict[Source, Lease] | None = None
        self._hooks: Hooks | None = None
        self._doomed: str | None = None
        self._commit_anyway = False
        self._poison: BaseException | None = None
        self._ended = False
        self.outcome = None
        self.reason = ""

    def __repr__(self) -> str:
        state = (
            "open" if self.outcome is None else f"{self.outcome.value}: {self.reason}"
        )
        return f"<UnitOfWork {state}>"

    # What users say of it

    def before_commit(
        self, hook: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call *hook* just before COMMIT, inside the transaction.

        A hook that raises makes the commit fail: everything is rolled back. It is not
        called if the unit is rolled back anyway, nor if its savepoint was.
        A coroutine function is awaited; a plain function runs in a worker thread,
        except in a sync `transaction()` block, where it is simply called.

        .. versionadded:: 0.1
        """
        self._open_hooks(hook).before_commit.append(self._hook(hook, *args, **kwargs))

    def on_commit(
        self, hook: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call *hook* once the work has been committed, before the client hears of it.

        Hooks run in the order given, after the connection has gone back to the pool. A
        hook that raises is logged; the commit stands and the others still run. Dropped
        if the unit, or the savepoint in which it was registered, is rolled back.
        Sync and async hooks: as in `before_commit`.

        .. versionadded:: 0.1
        """
        self._open_hooks(hook).on_commit.append(self._hook(hook, *args, **kwargs))

    def on_rollback(
        self, hook: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call *hook* if the unit is rolled back, after it has been.

        Not called when the outcome is unknown. A hook that raises is logged.

        .. versionadded:: 0.1
        """
        self._open_hooks(hook).on_rollback.append(self._hook(hook, *args, **kwargs))

    def rollback_only(self, reason: str = "rollback_only()") -> None:
        """Keep the response, drop the work: the unit will be rolled back. Sticky.

        .. versionadded:: 0.1
        """
        self._check_open()
        self._doomed = reason

    def commit_anyway(self) -> None:
        """Commit although the response is an error: the failed log-in must be counted.

        `rollback_only()` still wins, and so does a transaction that can't be committed.

        .. versionadded:: 0.1
        """
        self._check_open()
        self._commit_anyway = True

    # What the shells and the middleware do with it

    def _covers(self, source: Source) -> bool:
        return source in self._sources

    def _lease(self, source: Source) -> Lease:
        self._check_open()
        leases = self._leases
        if leases is None:
            leases = self._leases = {}
        lease = leases.get(source)
        if lease is None:
            lease = leases[source] = source.lease(self)
        return lease

    @property
    def _touched(self) -> bool:
        """Whether there is anything at all to end."""
        return self._leases is not None or self._hooks is not None

    @property
    def _pending(self) -> bool:
        """Whether ending it means more than closing sessions."""
        return bool(self._hooks) or any(
            lease.open for lease in (self._leases or {}).values()
        )

    def _leave(self) -> None:
        """Give up the places of sessions that hold no connection."""
        for lease in (self._leases or {}).values():
            if not lease.open:
                lease.leave()

    def _open_leases(self, *, streaming: bool = True) -> list[Lease]:
        leases = self._leases.values() if self._leases else ()
        return [x for x in leases if x.open and (streaming or not x.streaming)]

    def _finish(
        self, *, commit: bool, reason: str, streaming: bool = True
    ) -> Plan[None]:
        """End what is open, note the outcome; *streaming* sessions too, or not yet."""
        if not streaming and len(self._open_leases()) != len(
            self._open_leases(streaming=False)
        ):
            hooks = None  # their time comes when the stream has ended
        else:
            hooks = self._hooks
        begun = bool(self._open_leases(streaming=streaming))
        try:
            yield from finish(
                partial(self._open_leases, streaming=streaming),
                hooks,
                commit=commit,
            )
        except BaseException as error:
            unknown = isinstance(error, CommitUnknownError)
            outcome = Outcome.UNKNOWN if unknown else Outcome.ROLLED_BACK
            self._note(outcome, f"COMMIT failed: {type(error).__name__}")
            raise
        if not begun:
            self._note(Outcome.EMPTY, "no transaction was begun")
        else:
            self._note(Outcome.COMMITTED if commit else Outcome.ROLLED_BACK, reason)
        self._leave()

    def _conclude(self, error: BaseException | None) -> Plan[None]:
        """End the unit of a block: for good, and with an error if work was lost."""
        try:
            if error is not None:
                reason = f"{type(error).__name__} was raised"
                yield from self._finish(commit=False, reason=reason)
            elif self._doomed is not None:
                yield from self._finish(commit=False, reason=self._doomed)
            elif self._poison is not None:
                yield from self._finish(commit=False, reason="an error was swallowed")
                raise self._unexpected()
            else:
                yield from self._finish(commit=True, reason="the block ended")
        finally:
            self._end()

    def _end_message(self, error: BaseException | None) -> Plan[None]:
        """End what one WebSocket message has begun; the next one starts afresh."""
        doomed, self._doomed = self._doomed, None
        poison = self._poison
        self._commit_anyway = False
        self.outcome = None
        if error is not None:
            reason = f"{type(error).__name__} was raised"
            yield from self._finish(commit=False, reason=reason)
        elif doomed is not None:
            yield from self._finish(commit=False, reason=doomed)
        elif poison is not None:
            yield from self._finish(commit=False, reason="an error was swallowed")
            unexpected = self._unexpected()
            self._poison = None
            raise unexpected
        else:
            yield from self._finish(commit=True, reason="the message was handled")
        self._poison = None

    def _note(self, outcome: Outcome, reason: str) -> None:
        """The first word counts: it is what the client was told."""
        if self.outcome is None or self.outcome is Outcome.EMPTY:
            self.outcome = outcome
            self.reason = reason

    def _swallowed(self, error: BaseException) -> None:
        """Something inside the unit failed half-way: it can't be committed any more."""
        if self._poison is None:
            self._poison = error

    def _unexpected(self) -> UnexpectedRollbackError:
        error = UnexpectedRollbackError(
            "the work of this unit was rolled back: an error in the middle of it was "
            "swallowed. Let the error through, or put the risky part into a savepoint: "
            "`async with session.begin_nested():`"
        )
        error.__cause__ = self._poison
        return error

    def _end(self) -> None:
        """Close the sessions for good, and let go of everything.

        An asyncio transport keeps the context in which it was created, and with it this
        unit, for as long as the pooled connection lives.
        """
        self._ended = True
        leases, self._leases, self._hooks = self._leases, None, None
        if self.outcome is None:
            self._note(Outcome.EMPTY, "no transaction was begun")
        if leases:
            for source, lease in leases.items():
                lease.close((self.outcome or Outcome.EMPTY).value)
                source.returned(self)

    def _check_open(self) -> None:
        if self._ended:
            raise SessionEndedError(
                f"this unit of work has ended ({self.reason}). For work after the "
                "response (a background task, a task of your own) open a unit of its "
                "own: `async with db.transaction() as session:`"
            )

    def _open_hooks(self, hook: object) -> Hooks:
        self._check_open()
        if not callable(hook):
            raise UsageError(f"a hook must be callable, this is {hook!r}")
        if self._sync and inspect.iscoroutinefunction(hook):
            raise UsageError(
                f"{hook!r} is a coroutine function, and a sync transaction() block "
                "can't await it; give a plain function"
            )
        if self._hooks is None:
            self._hooks = Hooks()
        return self._hooks

    def _hook(
        self, hook: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> Hook:
        leases = self._leases.values() if self._leases else ()
        within = tuple(t for x in leases for t in enclosing(x.sync_session))
        return Hook(partial(hook, *args, **kwargs), within)


def current_unit() -> UnitOfWork:
    """The unit of work around the caller: the innermost one.

    Works in endpoints, dependencies, hooks and anything they call, sync or async.
    Raises `MissingSessionError` where there is none, `SessionEndedError` once it is
    over.

    .. versionadded:: 0.1
    """
    unit = current.get()
    if unit is None:
        raise MissingSessionError(
            "there is no unit of work here: add DBSessionMiddleware to the "
            "application, or open one: `async with db.transaction() as session:`"
        )
    unit._check_open()
    return unit


def unit_of(source: Source) -> UnitOfWork:
    """The innermost unit around the caller that has to do with *source*."""
    unit = current.get()
    while unit is not None and not unit._covers(source):
        unit = unit._parent
    if unit is None:
        raise MissingSessionError(
            f"there is no unit of work for database {source.name!r} here: give it to "
            "DBSessionMiddleware (db=...), or open one: "
            "`async with db.transaction() as session:`"
        )
    return unit


def unit_of_request(source: Source, request: object) -> UnitOfWork:
    """The unit of *request*, a Starlette `HTTPConnection` or an ASGI scope."""
    scope = getattr(request, "scope", request)
    if not isinstance(scope, Mapping):
        raise UsageError(f"give the request (or its ASGI scope), not {request!r}")
    unit: UnitOfWork | None = scope.get("unitwork")
    while unit is not None and not unit._covers(source):
        unit = unit._parent
    return unit_of(source) if unit is None else unit
