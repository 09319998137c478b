"""BEGIN and COMMIT of PostgreSQL, sent through the driver: their answers are read.

SQLAlchemy's drivers begin at the first statement that passes through them, and asyncpg
drops the command tag with which PostgreSQL answers COMMIT: "ROLLBACK" if it has aborted
the transaction. The private parts of the drivers that this needs are used here only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod, ref

from sqlalchemy.util import await_only

from .driver_connection import in_error, in_transaction

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["begin", "begins", "commit", "query_failed", "roll_back_begin", "watch"]

_ROLLED_BACK = "ROLLBACK"
_FATAL_ERROR = 7  # libpq, ExecStatusType


def begins(connection: Connection) -> bool:
    """Whether `begin()` knows the driver of *connection*."""
    dialect = connection.dialect
    return dialect.name == "postgresql" and dialect.driver in _DRIVERS


def begin(connection: Connection, query: str) -> str | None:
    """Send BEGIN, and *query* in the same message; return the value that it selects.

    The isolation level and the other characteristics are those of the driver's
    connection. Raises the error of the driver, as its adapter translates it.
    """
    driver: Any = connection.connection.driver_connection
    if connection.dialect.driver == "asyncpg":
        adapter: Any = connection.connection.dbapi_connection
        value: str | None = _awaited(_begin_asyncpg(adapter, driver, query))
        return value
    command = type(driver)._get_tx_start_command(driver)
    if query:
        command += f"; {query}".encode()
    if connection.dialect.is_async:
        result = _awaited(_wait_async(driver, command))
    else:
        with driver.lock:
            result = driver.wait(_send(driver, command))
    return result.get_value(0, 0).decode() or None if query else None


def watch(driver: Any, begins: WeakMethod[Callable[[], None]]) -> None:
    """Call *begins* whenever psycopg begins a transaction by itself."""
    if not hasattr(driver, "_get_tx_start_command"):
        return
    weakly = ref(driver)

    def get_command() -> bytes:
        if (method := begins()) is not None:
            method()
        command: bytes = type(driver)._get_tx_start_command(weakly())
        return command

    driver._get_tx_start_command = get_command


def query_failed(connection: Connection) -> bool:
    """Whether the query behind BEGIN has failed, and not BEGIN itself."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.driver == "asyncpg":
        return in_transaction(driver)
    return in_error(driver)


def roll_back_begin(connection: Connection) -> None:
    """End a transaction in which the query behind BEGIN has failed."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.driver == "asyncpg":
        driver._top_xact = None
        _awaited(driver.execute("ROLLBACK"))
    else:
        connection.connection.rollback()


def commit(dbapi_connection: Any, send: Callable[[], None]) -> bool:
    """Commit by *send*; return `False` if PostgreSQL has answered with ROLLBACK.

    libpq reports an aborted transaction before; this is for asyncpg.
    """
    transaction: Any = getattr(dbapi_connection.dbapi_connection, "_transaction", None)
    if not hasattr(transaction, "_connection"):
        send()
        return True
    wire = _Wire(transaction._connection)
    transaction._connection = wire
    try:
        send()
    finally:
        transaction._connection = wire.driver
    return bool(wire.answer != _ROLLED_BACK)


async def _wait_async(driver: Any, command: bytes) -> Any:
    async with driver.lock:
        return await driver.wait(_send(driver, command))


def _send(driver: Any, command: bytes) -> Generator[Any, Any, Any]:
    """Send *command* to libpq, as psycopg sends its own; return the last result."""
    from psycopg import errors, generators

    driver._check_connection_ok()
    driver.pgconn.send_query(command)
    results = yield from generators.execute(driver.pgconn)
    for result in results:
        if result.status == _FATAL_ERROR:
            raise errors.error_from_result(result)
    return results[-1]


async def _begin_asyncpg(adapter: Any, driver: Any, query: str) -> str | None:
    async with adapter._execute_mutex:
        try:
            transaction = driver.transaction(
                isolation=adapter.isolation_level,
                readonly=adapter.readonly,
                deferrable=adapter.deferrable,
            )
            wire = _Wire(driver, query)
            transaction._connection = wire
            await transaction.start()
            transaction._connection = driver
        except Exception as error:
            adapter._handle_exception(error)
            raise
        adapter._transaction = transaction
        if hasattr(adapter, "_started"):  # SQLAlchemy 2.0
            adapter._started = True
    return wire.read_value()


class _Wire:
    """In place of the connection of an asyncpg transaction: reads what it drops."""

    __slots__ = ("answer", "driver", "query", "value")

    def __init__(self, driver: Any, query: str = "") -> None:
        put = object.__setattr__
        put(self, "driver", driver)
        put(self, "query", query)
        put(self, "answer", "")
        put(self, "value", None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.driver, name, value)

    def read_value(self) -> str | None:
        value: str | None = self.value
        return value

    async def execute(self, statement: str) -> None:
        put = object.__setattr__
        if not self.query:
            put(self, "answer", await self.driver.execute(statement))
            return
        rows: list[bytes] = []

        async def receive(data: bytes) -> None:
            rows.append(data)

        # The simple protocol: one message, and COPY gives the row back.
        copied = f"{statement} COPY ({self.query}) TO STDOUT"
        await self.driver._protocol.copy_out(copied, receive, None)
        put(self, "value", b"".join(rows).decode().strip() or None)


_DRIVERS = {"asyncpg", "psycopg", "psycopg_async"}


def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await_only(awaitable)
