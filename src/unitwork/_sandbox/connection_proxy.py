"""In place of the DBAPI connection of a unit: its transactions are savepoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from sqlalchemy.util.concurrency import in_greenlet

from .._sql.sql_text import MYSQL
from .failure import SandboxError
from .savepoints import begins_by_text, with_unique_names
from .shared_connection import SharedConnection
from .turn import SavepointState, Turn

__all__ = ["ConnectionProxy", "CursorProxy"]

_OWN = {"anonymous", "commits_each", "is_borrowed", "shared", "turn"}
"""The attributes of a proxy itself."""
_EXECUTING = {"execute", "executemany", "executescript"}
"""The methods of drivers' connections that execute statements."""
_MODES = {"autocommit", "deferrable", "isolation_level", "read_only", "readonly"}
"""Attributes of drivers' connections that concern a whole transaction."""
_SETTERS = {
    "autocommit",
    "set_autocommit",
    "set_deferrable",
    "set_isolation_level",
    "set_read_only",
    "set_session",
}
"""The methods for the same. None of them has an effect inside a transaction."""


class ConnectionProxy:
    """One loan of the shared connection, with a transaction of its own.

    All else is done by the DBAPI connection itself.
    """

    _transaction = object()
    """asyncpg's adapter has its own there, or `None`; here it is never looked into."""

    def __init__(self, shared: SharedConnection, anonymous: Callable[[], Turn]) -> None:
        self.shared = shared
        self.anonymous = anonymous
        self.turn: Turn | None = None
        self.is_borrowed = False
        """Whether the turn was taken here, and not by the session."""
        self.commits_each = False
        """Whether it is in AUTOCOMMIT mode."""

    def begin(self, turn: Turn | None = None) -> None:
        """Begin, once it is the turn of its unit."""
        own = self.turn or turn or self.anonymous()
        self.turn = own
        if own.is_preemptible:
            return  # at its first statement
        self._wait_for(own)
        self.shared.begin(own)

    def _wait_for(self, turn: Turn) -> None:
        turns = self.shared.turns
        if not turn.is_preemptible and not turn.is_held:
            self.is_borrowed = True
        turns.enter_anywhere(turn)

    def statement(self, execute: Callable[[], Any]) -> Any:
        """Call *execute* in its loop, once it is the turn of its unit."""
        if self.turn is None:
            self.begin()
        turn = self.turn
        assert turn is not None
        turns = self.shared.turns
        _check_not_lost(turn)
        while not turns.begin_statement(turn):
            self._wait_for(turn)
        try:
            self.shared.begin(turn)
            result = self.shared.outer.in_loop(execute)
            turn.move(SavepointState.OPEN)
        except BaseException:
            turn.move(SavepointState.FAILED)
            raise
        finally:
            turns.end_statement(turn)
            self.shared.check_around(turn)
        return result

    # DBAPI

    @property
    def driver(self) -> Any:
        """The driver's own connection."""
        return self.shared.outer.driver

    def cursor(self, *args: Any, **options: Any) -> CursorProxy:
        if self.turn is None or self.turn.savepoint is None:
            self.shared.check()
        if self.driver is None:
            self.statement(_nothing)  # which opens it
        make = partial(self.shared.outer.raw.cursor, *args, **options)
        return CursorProxy(
            self, make() if in_greenlet() else self.shared.outer.in_loop(make)
        )

    def commit(self) -> None:
        turn = self.turn
        if turn is not None:
            _check_not_lost(turn)
        if turn is None or turn.savepoint is None:
            return
        if turn.is_preemptible:
            self.commit_savepoint()
        else:
            self.shared.send(self)

    def commit_savepoint(self) -> None:
        """Do what COMMIT would do."""
        turn = self.turn
        if turn is not None and turn.savepoint is not None:
            self._wait_for(turn)
            self.shared.commit(turn)

    def rollback(self) -> None:
        turn = self.turn
        if turn is not None:
            self.shared.acknowledge_rollback(turn)
        if turn is None or turn.savepoint is None:
            return
        self._wait_for(turn)
        if self.commits_each:
            self.shared.commit(turn)
        else:
            self.shared.rollback(turn)

    def close(self) -> None:
        """Give the connection back: what is open is rolled back, later. No I/O."""
        turn = self.turn
        if turn is None:
            return
        self.shared.abandon(turn)
        if self.is_borrowed:
            self.shared.turns.leave(turn)
            self.is_borrowed = False
        self.turn = None

    terminate = close

    def __getattr__(self, name: str) -> Any:
        if name in _SETTERS:
            return self._set_mode
        if self.driver is None:
            self.shared.check()
            raise AttributeError(f"the connection has no {name!r} before it is open")
        value = getattr(self.shared.outer.raw, name)
        if not callable(value) or isinstance(value, type):
            return value
        if name in _EXECUTING:
            return self.executing(value)
        in_loop = self.shared.outer.in_loop
        return lambda *args, **options: in_loop(lambda: value(*args, **options))

    def executing(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Let *method* of the driver's connection or cursor wait for its turn."""

        def execute(statement: Any, *args: Any, **options: Any) -> Any:
            text = self._prepared(statement)
            if text is None:
                return None
            result = self.statement(lambda: method(text, *args, **options))
            self._executed(text)
            return result

        return execute

    def _prepared(self, statement: Any) -> Any:
        """The statement to execute; `None`: none, it would begin a second time."""
        if self.turn is None:
            self.begin()
        turn, shared = self.turn, self.shared
        if turn is None or not isinstance(statement, str):
            return statement
        if begins_by_text(statement) and shared.dialect.name == "sqlite":
            return None  # a listener that begins where the driver does not
        shared.note(turn, statement)
        if shared.dialect.name in MYSQL and turn.savepoint is not None:
            return with_unique_names(statement, turn.savepoint)
        return statement

    def _executed(self, statement: object) -> None:
        """Record that *statement* has been executed, whatever that has done."""
        if self.turn is not None:
            self.turn.unclassified.append(str(statement))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            super().__setattr__(name, value)
        elif name in _MODES:
            self._set_mode(value)
        else:
            setattr(self.shared.outer.raw, name, value)

    def _set_mode(self, value: Any = None, *args: Any, **options: Any) -> None:
        """Record AUTOCOMMIT alone: savepoints have no modes."""
        text = str(value).replace("_", " ").upper()
        self.commits_each = text in ("AUTOCOMMIT", "TRUE")


def _check_not_lost(turn: Turn) -> None:
    if turn.state is SavepointState.UNDONE:
        raise SandboxError(
            f"a statement of {turn.name()} has failed, which has undone what was not "
            "committed: call the `rollback()` of that session first"
        )


def _nothing() -> None:
    """Be executed in place of a statement."""


class CursorProxy:
    """A cursor whose statements wait for their turn, and are executed in its loop."""

    def __init__(self, proxy: ConnectionProxy, cursor: Any) -> None:
        object.__setattr__(self, "unitwork_proxy", proxy)
        object.__setattr__(self, "unitwork_cursor", cursor)

    unitwork_proxy: ConnectionProxy
    unitwork_cursor: Any

    def execute(self, statement: Any, *args: Any, **options: Any) -> Any:
        return self._execute(self.unitwork_cursor.execute, statement, args, options)

    def executemany(self, statement: Any, *args: Any, **options: Any) -> Any:
        return self._execute(self.unitwork_cursor.executemany, statement, args, options)

    def _execute(
        self,
        method: Callable[..., Any],
        statement: Any,
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        return self.unitwork_proxy.executing(method)(statement, *args, **options)

    def fetchone(self) -> Any:
        return self._fetch(self.unitwork_cursor.fetchone)

    def fetchmany(self, *args: Any, **options: Any) -> Any:
        fetch = self.unitwork_cursor.fetchmany
        return self._fetch(lambda: fetch(*args, **options))

    def fetchall(self) -> Any:
        return self._fetch(self.unitwork_cursor.fetchall)

    def close(self) -> None:
        self._fetch(self.unitwork_cursor.close)

    def _fetch(self, fetch: Callable[[], Any]) -> Any:
        """In its loop, if that may need the server: the rest is fetched already."""
        if not getattr(self.unitwork_cursor, "server_side", False):
            return fetch()
        return self.unitwork_proxy.shared.outer.in_loop(fetch)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())

    def __enter__(self) -> CursorProxy:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unitwork_cursor, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.unitwork_cursor, name, value)
