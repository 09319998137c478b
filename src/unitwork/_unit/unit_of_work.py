"""`UnitOfWork`: the public interface of a unit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from inspect import iscoroutine
from typing import ParamSpec
from weakref import ref

from .._callables import is_async_callable
from .._commit.hooks import Hook, Hooks, enclosing
from ..errors import UsageError
from ..outcome import Outcome
from .outside import Outside, release
from .state import UnitState
from .unit import Unit

__all__ = ["UnitOfWork", "facade_of"]

P = ParamSpec("P")
_TOO_LATE = (
    "before_commit() comes too late: COMMIT is under way. A listener to SQLAlchemy's "
    "before_commit event has to do by itself what the hook would do"
)


class UnitOfWork:
    """The sessions, hooks and decision of one piece of work.

    The middleware opens a unit for each request, and `transaction()` for each block.
    `current_unit()` returns this object; an application does not construct it.
    Belongs to one request or block: its methods may be called from the tasks and
    threads of that, but not by two of them at once.

    .. versionadded:: 0.1
    """

    __slots__ = ("__weakref__", "_unit")

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    @property
    def attempt(self) -> int:
        """The number of this attempt at the work: 1, and more after a retry."""
        return self._unit.attempt.number

    @property
    def is_last_attempt(self) -> bool:
        """Whether it will not be retried, whatever happens."""
        return not self._unit.may_be_retried

    @property
    def outcome(self) -> Outcome | None:
        """The outcome of the unit; `None` while it is under way."""
        return self._unit.outcome

    @property
    def reason(self) -> str:
        """The reason for the outcome, for logs; empty while the unit is under way."""
        return self._unit.reason

    @property
    def token(self) -> str | None:
        """The token of what it, and units inside it, have committed so far.

        For databases with replicas: another unit that is given it by `read_after()`,
        in this process or another one, sees the writes. It is also the one of what this
        unit was given. `None` if there is nothing to see. Not signed.

        .. versionadded:: 0.2
        """
        return self._unit.token

    def read_after(self, token: str | None) -> None:
        """See the writes of the unit whose *token* this is, also on a replica.

        Does nothing for `None`. Raises `UsageError` for what is no token, and once the
        unit reads from a replica.

        .. versionadded:: 0.2
        """
        if token is not None:
            self._unit.read_after(token)

    def __repr__(self) -> str:
        return f"<UnitOfWork {self._unit.describe_end()}>"

    def before_commit(
        self, hook: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call *hook* just before COMMIT, inside the transaction.

        A hook that raises makes the commit fail: everything is rolled back. It is not
        called if the unit is rolled back anyway, nor if its savepoint was.
        A coroutine function is awaited; a plain function runs in a worker thread,
        except in a sync `transaction()` block, where it is simply called.
        Raises `UsageError` once COMMIT is under way.

        .. versionadded:: 0.1
        """
        if self._unit.state is UnitState.COMMITTING:
            raise UsageError(_TOO_LATE)
        self._hooks_for(hook).before_commit.append(self._hook(hook, *args, **kwargs))

    def on_commit(
        self, hook: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call *hook* once the work has been committed, before the response starts.

        Hooks run in the order given, after the connection has gone back to the pool. A
        hook that raises is logged; the commit stands and the others still run. Dropped
        if the unit, or the savepoint in which it was registered, is rolled back.
        The unit's own sessions refuse work: open a `db.transaction()` block for that.
        Sync and async hooks: as in `before_commit`.

        .. versionadded:: 0.1
        """
        hooks = self._hooks_for(hook)
        made = self._hook(hook, *args, **kwargs)
        hooks.on_commit.append(made._replace(is_on_commit=True))

    def on_rollback(
        self, hook: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call *hook* if the unit is rolled back, after it has been.

        Not called when the outcome is unknown or partial. A hook that raises is logged.

        .. versionadded:: 0.1
        """
        self._hooks_for(hook).on_rollback.append(self._hook(hook, *args, **kwargs))

    def on_unknown(
        self, hook: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call *hook* if it is unknown whether the unit was committed, or a part was.

        The request fails as well: with `CommitUnknownError`, or `PartialCommitError` if
        one database has committed and another one has not. A hook that raises is
        logged.

        .. versionadded:: 0.1
        """
        self._hooks_for(hook).on_unknown.append(self._hook(hook, *args, **kwargs))

    def outside(self, what: str = "outside()") -> Outside:
        """Hold no connection in the block, in which something else is waited for.

        `async with unit.outside("openai"):`, or `with` in a `def` endpoint. Entering it
        ends the open transaction and returns its connection to the pool; the next
        statement after the block begins another one, with the same options and what is
        left of the deadline. Loaded objects stay loaded, unflushed ones pending, and
        hooks registered.

        In the block, statements, flushes and lazy loads raise `UsageError`, in other
        tasks and threads too. Entering it raises `UsageError`, which names the
        statement, unless all transactions of the unit have only read, hold no locks,
        settings, cursors or savepoints, and are READ COMMITTED (PostgreSQL, MariaDB) or
        without an isolation level of their own (SQLite). *what* is for these messages.

        .. versionadded:: 0.2
        """
        self._unit.check_open()
        return Outside(self._unit, what)

    def release(self) -> Awaitable[None]:
        """Return the connections to the pool now: `outside()` without a block.

        `await unit.release()`; in a `def` endpoint a plain call. The next statement
        connects again. Raises as `outside()` does.

        .. versionadded:: 0.2
        """
        self._unit.check_open()
        return release(self._unit)

    def rollback_only(self, reason: str = "rollback_only()") -> None:
        """Keep the response, and roll the unit back. This can't be undone.

        .. versionadded:: 0.1
        """
        self._unit.check_open()
        self._unit.request_rollback(reason)

    def commit_anyway(self) -> None:
        """Commit although the response is an error: to count failed log-ins, say.

        `rollback_only()` still wins. If the transaction can't be committed, that error
        replaces the response.

        .. versionadded:: 0.1
        """
        self._unit.check_open()
        self._unit.request_commit()

    def side_effect_done(self, what: str = "side_effect_done()") -> None:
        """Record *what* must not be done twice, such as charging a card.

        From now on neither the request nor an enclosing `db.run()` is retried.

        .. versionadded:: 0.1
        """
        self._unit.check_open()
        self._unit.forbid_retry(what)

    def _hooks_for(self, hook: object) -> Hooks:
        unit = self._unit
        unit.check_open()
        if iscoroutine(hook):
            hook.close()  # or Python warns that it was never awaited
            called = hook.__name__
            raise UsageError(
                f"a hook must be callable, {called}() was called already: write the "
                f"function and then its arguments, `unit.on_commit({called}, ...)`"
            )
        if not callable(hook):
            raise UsageError(f"a hook must be callable, this is {hook!r}")
        if unit.is_sync and is_async_callable(hook):
            raise UsageError(
                f"{hook!r} is a coroutine function, and a sync transaction() block "
                "can't await it; give a plain function"
            )
        if unit.hooks is None:
            unit.hooks = Hooks()
        return unit.hooks

    def _hook(
        self, hook: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> Hook:
        sessions = self._unit.sessions
        sent: list[object] = []
        for session in sessions:
            session.note_work()
            if session.ends.savepoints is not None:
                sent += session.ends.savepoints.of_connections
        within = tuple(t for x in sessions for t in enclosing(x.sync_session))
        return Hook(partial(hook, *args, **kwargs), within, savepoints=tuple(sent))


def facade_of(unit: Unit) -> UnitOfWork:
    """The one `UnitOfWork` of *unit*, for as long as the application keeps it."""
    facade = unit.facade() if unit.facade is not None else None
    if not isinstance(facade, UnitOfWork):
        facade = UnitOfWork(unit)
        unit.facade = ref(facade)
    return facade
