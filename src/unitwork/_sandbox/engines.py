"""The engines of a sandbox: one for each of the application's, on a shared connection.

They have the listeners, options and caches of those engines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import Pool

from .._driver.sqlalchemy_internals import EngineOver, PoolEntry
from .._sql.write_detection import known_to_read, known_to_write
from .._transaction.connection_state import loan_of
from .._transaction.session_reset import move_traces
from ..errors import ReadOnlyError
from .connection_proxy import ConnectionProxy
from .shared_connection import SharedConnection
from .turn import Turn, Writes

__all__ = ["TURN", "engine_over"]

TURN = "unitwork_turn"
"""The execution option with the turn of an engine's user."""
_TEMPLATE = "unitwork_sandbox_template"
_WITHOUT_READ_ONLY = {"mysql", "mariadb", "sqlite"}
"""Where no statement makes an open transaction read-only."""


class _SandboxPool(Pool):
    """Has a proxy for each user; nothing is kept."""

    def __init__(
        self,
        shared: SharedConnection,
        dialect: Any,
        anonymous: Callable[[], Turn],
    ) -> None:
        self._shared = shared
        super().__init__(
            lambda: ConnectionProxy(shared, anonymous),  # type: ignore[arg-type]  # as a DBAPI connection
            reset_on_return=None,
            dialect=dialect,
        )

    def _do_get(self) -> PoolEntry:
        return PoolEntry(self)

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        connection.close()  # the dialect would end it, and so the sandbox

    def _do_return_conn(self, record: Any) -> None:
        move_traces(record.info, self._shared.outer.info)
        if record.dbapi_connection is not None:
            record.dbapi_connection.close()

    def recreate(self) -> _SandboxPool:
        return self

    def dispose(self) -> None:
        """Do nothing: the sandbox ends by itself."""

    def status(self) -> str:
        return "the connection of a sandbox"


def engine_over(
    engine: Engine, shared: SharedConnection, anonymous: Callable[[], Turn]
) -> Engine:
    """Make the engine in place of *engine*."""
    pool = _SandboxPool(shared, engine.dialect, anonymous)
    return EngineOver(_template_of(engine), pool)


def _template_of(engine: Engine) -> Engine:
    """The engine with the listeners of all that are in place of *engine*.

    The one engine keeps the other: to listen again for each sandbox would take longer.
    """
    known = vars(engine)
    template: Engine | None = known.get(_TEMPLATE)
    if template is None:
        template = EngineOver(engine, engine.pool)
        event.listen(template, "begin", _begin)
        if engine.dialect.name in _WITHOUT_READ_ONLY:
            event.listen(template, "before_cursor_execute", _refuse_writes)
        event.listen(template, "after_cursor_execute", _look_at)
        known[_TEMPLATE] = template
    return template


def _begin(connection: Connection) -> None:
    proxy: Any = connection.connection.dbapi_connection
    proxy.begin(connection.get_execution_options().get(TURN))


def _refuse_writes(
    connection: Connection,
    cursor: Any,
    statement: str,
    parameters: Any,
    context: Any,
    executemany: bool,
) -> None:
    """Do what a read-only transaction would do: a savepoint can't be one."""
    proxy: Any = connection.connection.dbapi_connection
    loan = loan_of(connection)
    if loan is None or not loan.read_only or proxy.turn is None:
        return
    proxy.shared.refuse_writes(proxy.turn)
    if context is not None and known_to_write(context, statement):
        raise ReadOnlyError(
            "this transaction only reads (read_only=True). Set read_only=False where "
            "something is written"
        )


def _look_at(
    connection: Connection,
    cursor: Any,
    statement: str,
    parameters: Any,
    context: Any,
    executemany: bool,
) -> None:
    """Record what a statement is known to do: savepoints show less than a database."""
    proxy: Any = connection.connection.dbapi_connection
    turn: Turn | None = proxy.turn
    if turn is not None and context is not None:
        turn.classify_last(_writes_of(context, statement, turn.writes))


def _writes_of(context: Any, statement: str, before: Writes) -> Writes:
    """What is known of *statement*; of no interest if it is no more than *before*."""
    if before is Writes.SOME or known_to_write(context, statement):
        return Writes.SOME
    if before is Writes.UNKNOWN or not known_to_read(context, statement):
        return Writes.UNKNOWN
    return Writes.NONE
