"""The state of one pooled connection that its driver does not keep."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from .driver_connection import is_cursor_open, last_result
from .write_detection import known_to_read, known_to_write
from .write_evidence import TELLING, changes_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["INFO_KEY", "ConnectionState", "state_of"]

INFO_KEY = "unitwork"


class ConnectionState:
    """One connection, from the time it is opened until it is closed."""

    __slots__ = (
        "aborted_by_client",
        "changes_before",
        "client_side_read_only",
        "driver_connection",
        "failure",
        "last_result",
        "loop",
        "only_reads",
        "pragmas",
        "read_only",
        "returned_at",
        "rolled_back_by_server",
        "server_side_cursor",
        "statement_prefix",
        "statements_in_flight",
        "used_by_unit",
        "wrote",
        "xid",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop | None, driver_connection: Any
    ) -> None:
        self.loop = loop
        self.driver_connection = driver_connection
        self.returned_at: float | None = None
        self.aborted_by_client = False
        """Whether unitwork has aborted it: its user may not have noticed that."""
        self.statements_in_flight = 0
        self.server_side_cursor: ReferenceType[Any] | None = None
        """The execution context of the last statement with one."""
        self.pragmas: dict[str, Any] = {}
        """SQLite's pragmas that the transaction has changed: their values before."""
        self.reset()

    def reset(self, *, used_by_unit: bool = False) -> None:
        """Reset the per-transaction state."""
        self.used_by_unit = used_by_unit
        """Whether a unit uses it, and so its statements are watched."""
        self.wrote = False
        """Whether a statement of the transaction is known to have written."""
        self.only_reads = True
        """Whether all statements are known to read, where the database can't tell."""
        self.last_result = last_result(self.driver_connection)
        self.changes_before = changes_of(self.driver_connection)
        self.statement_prefix = ""
        """What each statement of the transaction begins with."""
        self.xid = ""
        """The name of the XA transaction that is open, and not prepared yet."""
        self.read_only = False
        self.client_side_read_only = False
        """Whether writes are rejected client-side: AUTOCOMMIT has no transaction."""
        self.failure: BaseException | None = None
        """The last statement error that no savepoint has undone."""
        self.rolled_back_by_server = False
        """Whether the database has rolled back the whole transaction by itself."""

    def statement_executed(self, statement: str, context: Any) -> None:
        """Record whether *statement* has written, or opened a server-side cursor."""
        if not self.wrote:
            self.wrote = known_to_write(context, statement)
            if self.only_reads and context.dialect.name not in TELLING:
                self.only_reads = known_to_read(context, statement)
                self.last_result = last_result(self.driver_connection)
        options = context.execution_options
        if options and (options.get("stream_results") or options.get("yield_per")):
            self.server_side_cursor = ref(context)

    @property
    def was_bypassed(self) -> bool:
        """Whether a driver of MySQL has had a query that did not pass SQLAlchemy."""
        result = last_result(self.driver_connection)
        return result is not None and result is not self.last_result

    @property
    def may_have_written(self) -> bool:
        """Whether it has written, as far as is known without I/O: see `has_written`."""
        return self.wrote or changes_of(self.driver_connection) != self.changes_before

    @property
    def is_streaming(self) -> bool:
        """Whether a server-side cursor is open, as far as that is known."""
        cursor = self.server_side_cursor
        context = cursor() if cursor is not None else None
        return context is not None and is_cursor_open(context.cursor)


def state_of(connection: Connection) -> ConnectionState | None:
    """The state of an open *connection*; `None` once it is closed or invalidated."""
    if connection.closed or connection.invalidated:
        return None
    state: ConnectionState | None = connection.info.get(INFO_KEY)
    return state
