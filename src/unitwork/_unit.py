"""The unit of work: the sessions, hooks and decision of one piece of work."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ._classify.classification import Phase, classify
from ._concurrency.shield import uninterrupted
from ._current import current
from ._drive import Plan, arun
from ._ending import Outcome
from ._engine.begin import TransactionCharacteristics
from ._hooks import Hook, Hooks, enclosing
from .errors import (
    SessionEndedError,
    UnexpectedRollbackError,
    UsageError,
)
from .options import NO_OPTIONS, TransactionOptions, asked

if TYPE_CHECKING:
    from ._session import Lease
    from ._source import Source
    from ._twophase import Together

__all__ = ["UnitOfWork"]

P = ParamSpec("P")
T = TypeVar("T")

_NOTHING = TransactionCharacteristics()
_INSIDE = "a unit of its own inside has committed"
NOT_BEGUN = "no transaction was begun"
BY_HAND = "session.commit() was called"


class UnitOfWork:
    """The sessions, hooks and decision of one piece of work.

    Made by the middleware for each request and by `transaction()` for each block, never
    by hand. Belongs to one request: its methods may be called from the tasks and
    threads of that request, but not by two of them at once.

    .. versionadded:: 0.1
    """

    # Most units leave most of these as they are, and don't pay for them.
    _sync = False
    _used = False
    """Whether there has been a session or a hook."""
    _leases: dict[Source, Lease] | None = None
    _hooks: Hooks | None = None
    _doomed: str | None = None
    _commit_anyway = False
    _by_hand = False
    _committing = False
    _poison: BaseException | None = None
    _ended = False
    _refuses = False
    _result: tuple[Outcome, str] | None = None
    _asked = NO_OPTIONS
    _attempt = 1
    _together: Together | None = None
    """Set where several databases are committed in two phases."""
    _irrevocable: str | None = None
    """Why it can't be run a second time."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        parent: UnitOfWork | None = None,
        sync: bool = False,
    ) -> None:
        self._sources = sources
        self._parent = parent
        if sync:
            self._sync = True

    @property
    def attempt(self) -> int:
        """Which attempt at its work this is: 1, and more if it is tried again."""
        return self._attempt

    @property
    def is_last_attempt(self) -> bool:
        """Whether it will not be tried again, whatever happens."""
        return not self._may_be_retried

    @property
    def outcome(self) -> Outcome | None:
        """What became of the unit; `None` while it is under way."""
        if self._result is not None:
            return self._result[0]
        if not self._ended:
            return None
        return Outcome.COMMITTED if self._by_hand else Outcome.EMPTY

    @property
    def reason(self) -> str:
        """Why: in words, for logs; empty while it is under way."""
        if self._result is not None:
            return self._result[1]
        if not self._ended:
            return ""
        return BY_HAND if self._by_hand else NOT_BEGUN

    def __repr__(self) -> str:
        return f"<UnitOfWork {self._fate}>"

    @property
    def _fate(self) -> str:
        """What became of the unit and why, in words: for logs and messages."""
        return f"{self.outcome.value}: {self.reason}" if self.outcome else "open"

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
        The unit's own sessions refuse: for more work open a `db.transaction()` block.
        Sync and async hooks: as in `before_commit`.

        .. versionadded:: 0.1
        """
        self._open_hooks(hook).on_commit.append(self._hook(hook, *args, **kwargs))

    def on_rollback(
        self, hook: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call *hook* if the unit is rolled back, after it has been.

        Not called when the outcome is unknown or partial. A hook that raises is logged.

        .. versionadded:: 0.1
        """
        self._open_hooks(hook).on_rollback.append(self._hook(hook, *args, **kwargs))

    def on_unknown(
        self, hook: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call *hook* if nobody can tell whether the unit was committed, or a part was.

        The client is told so, too: `CommitUnknownError`, or `PartialCommitError` if
        one database has committed and another one has not. A hook that raises is
        logged.

        .. versionadded:: 0.1
        """
        self._open_hooks(hook).on_unknown.append(self._hook(hook, *args, **kwargs))

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

    def side_effect_done(self, what: str = "side_effect_done()") -> None:
        """Say that something was done that must not be done twice: a card is charged.

        From now on neither the request nor a `db.run()` around is tried again.

        .. versionadded:: 0.1
        """
        self._check_open()
        self._never_again(what)

    # What the shells and the middleware do with it

    def _never_again(self, why: str) -> None:
        unit: UnitOfWork | None = self
        while unit is not None:
            unit._irrevocable = unit._irrevocable or why
            unit = unit._parent

    def _has_stored(self) -> None:
        """Note that the units around can't be run again: this would be done twice."""
        outer = self._parent
        while outer is not None:
            if not outer._refuses:  # what a hook of its rollback does is no part of it
                outer._irrevocable = outer._irrevocable or _INSIDE
            outer = outer._parent

    def _look_at_commits(self, error: BaseException | None) -> None:
        """Note what is stored, or may be, although the unit itself has not committed.

        *error* may be that of a COMMIT by hand.
        """
        for lease in (self._leases or {}).values():
            failed = error if lease.committing else None
            if failed is not None and classify(failed, phase=Phase.COMMIT).unknown:
                self._never_again("what became of session.commit() is not known")
            if lease.stores_at_once:
                self._never_again("each statement has committed itself")

    @property
    def _is_in_a_retry(self) -> bool:
        """Whether it or one around it has attempts: what is inside has none then."""
        unit: UnitOfWork | None = self
        while unit is not None:
            several = (unit._options.attempts or 1) > 1
            if several and not unit._ended and unit._is_repeatable:
                return True
            unit = unit._parent
        return False

    @property
    def _options(self) -> TransactionOptions:
        return self._asked

    @property
    def _may_be_retried(self) -> bool:
        """Whether a failure that is nobody's fault would let it be run once more."""
        return self._attempt < (self._options.attempts or 1) and self._is_repeatable

    @property
    def _is_repeatable(self) -> bool:
        """Whether nothing has been done in it that must not be done twice."""
        return self._irrevocable is None and not self._by_hand

    def _asks(self, lease: Lease) -> TransactionCharacteristics | None:
        """What the next transaction of *lease* is to begin with; `None`: nothing."""
        options = self._options
        if options is NO_OPTIONS and not lease.defers_write_lock:
            return None
        begin = options.begin
        if lease.defers_write_lock and not self._may_write:
            begin = begin._replace(deferred=True)
        return None if begin == _NOTHING else begin

    def _covers(self, source: Source) -> bool:
        return source in self._sources.values()

    def _lease(self, source: Source) -> Lease:
        self._check_open()
        if asked.deadline:
            self._keep_time()
        leases = self._leases
        if leases is None:
            leases = self._leases = {}
            self._used = True
        lease = leases.get(source)
        if lease is None:
            if self._parent is not None:
                self._check_not_blocked(source)
            lease = leases[source] = source.lease(self)
            lease.ended = self if self._refuses else None
        return lease

    def _keep_time(self) -> None:
        """Watch the deadline, if there is one: a session is asked for."""

    def _check_not_blocked(self, source: Source) -> None:
        """Refuse a second unit that would only wait for the first one, around it."""
        for outer, lease in self._around(source):
            if source.keeps_out(self, outer, lease):
                raise UsageError(
                    f"database {source.name!r} lets in one unit at a time, and the one "
                    "around this block is inside: this block would wait for it for "
                    'ever. Use `transaction(nested="join")` or `nested="savepoint"`'
                )

    def _around(self, source: Source) -> Iterator[tuple[UnitOfWork, Lease]]:
        """Yield the units around this one that have a session of *source*, and that."""
        outer = self._parent
        while outer is not None and not outer._ended:
            lease = (outer._leases or {}).get(source)
            if lease is not None:
                yield outer, lease
            outer = outer._parent

    @property
    def _may_write(self) -> bool:
        return not self._options.read_only

    @property
    def _pending(self) -> bool:
        """Whether ending it means more than closing sessions."""
        if self._leases is not None:
            for lease in self._leases.values():
                if lease.open:
                    return True
        return bool(self._hooks) or (self._poison is not None and self._is_lost)

    @property
    def _has_written(self) -> bool:
        """Whether there may be something to store."""
        return any(lease.wrote for lease in (self._leases or {}).values())

    def _leave(self) -> None:
        """Give up the places of sessions that hold no connection."""
        if self._leases is not None:
            for lease in self._leases.values():
                if lease.places and not lease.open:
                    lease.leave()

    def _settle(self, outcome: Outcome | None) -> None:
        """Refuse the sessions to hooks that run after *outcome*; `None`: no longer."""
        self._refuses = outcome is not None or (
            self._poison is not None and self._is_lost
        )
        if self._leases is not None:
            for lease in self._leases.values():
                lease.ended = self if self._refuses else None
                if lease.places and not lease.open:
                    lease.leave()

    def _refuse(self) -> None:
        """Refuse the sessions for good: nobody would end what they begin."""
        self._settle(Outcome.ROLLED_BACK)

    def _open_leases(self, *, streaming: bool = True) -> list[Lease]:
        """Those that have something open, in the order of their commits."""
        leases = self._leases or {}
        if len(leases) > 1:
            order = list(self._sources.values())
            leases = dict(sorted(leases.items(), key=lambda item: order.index(item[0])))
        return [x for x in leases.values() if x.open and (streaming or not x.streaming)]

    def _note(self, outcome: Outcome, reason: str) -> None:
        """The first word counts: it is what the client was told."""
        if self._result is None or self._result[0] is Outcome.EMPTY:
            self._result = (outcome, reason)

    def _committed_by_hand(self) -> None:
        """Note that the application has called `session.commit()`."""
        self._by_hand = True
        self._has_stored()
        if self._hooks is not None:
            self._hooks.settled(Outcome.COMMITTED)

    def _run(self, plan: Plan[T]) -> Coroutine[Any, Any, T]:
        """Run *plan* to its end, in a context in which this is the current unit."""
        context = None
        if current.get() is not self:
            context = copy_context()
            context.run(current.set, self)
        return uninterrupted(arun(plan), self._interruptible, context)

    def _interruptible(self) -> bool:
        """Whether a cancellation may reach what is done now: COMMIT is not sent yet."""
        if self._refuses or self._leases is None:
            return False
        for lease in self._leases.values():
            if not lease.is_async or lease.doubts is not None:
                return False
        return True

    def _swallowed(self, error: BaseException) -> None:
        """Something inside the unit failed half-way: it can't be committed any more."""
        if self._poison is None:
            self._poison = error

    @property
    def _is_lost(self) -> bool:
        """Whether it must not be told as a success, however little is open now."""
        return isinstance(self._poison, UnexpectedRollbackError)

    def _end(self) -> None:
        """Close the sessions for good, and let go of everything.

        An asyncio transport keeps the context in which it was created, and with it this
        unit, for as long as the pooled connection lives.
        """
        self._ended = True
        leases, self._hooks = self._leases, None
        if leases is not None:
            self._leases = {}
            for source, lease in leases.items():
                lease.close(self)
                source.returned(self)

    def _check_open(self) -> None:
        if self._ended:
            raise SessionEndedError(
                f"this unit of work has ended ({self._fate}). For work after the "
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
            self._used = True
        return self._hooks

    def _hook(
        self, hook: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> Hook:
        leases = self._leases.values() if self._leases else ()
        within = tuple(t for x in leases for t in enclosing(x.sync_session))
        return Hook(partial(hook, *args, **kwargs), within)
