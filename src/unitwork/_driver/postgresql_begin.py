"""BEGIN of PostgreSQL, sent through the driver, with a query in the same message.

SQLAlchemy's drivers begin at the first statement that passes through them. The private
parts of the drivers that this needs are used here only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only

from .driver_connection import in_error, in_transaction
from .postgresql_messages import (
    AsyncpgStandIn,
    copy_by_asyncpg,
    keep,
    send_by_psycopg,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "DRIVERS",
    "begin",
    "begins",
    "query_failed",
    "roll_back_begin",
    "set_autocommit",
]

DRIVERS = {"asyncpg", "psycopg", "psycopg_async"}


def begins(connection: Connection) -> bool:
    """Whether `begin()` knows the driver of *connection*."""
    dialect = connection.dialect
    return dialect.name == "postgresql" and dialect.driver in DRIVERS


def begin(
    connection: Connection, driver: Any, query: str, setting: str = ""
) -> str | None:
    """Send BEGIN, and *query* in the same message; return the value that it selects.

    *driver* is the driver's connection of *connection*; the isolation level and the
    other characteristics are its own. *setting* is a statement that goes in between,
    and reads nothing. Raises the error of the driver, as its adapter translates it.
    """
    if connection.dialect.driver == "asyncpg":
        adapter: Any = connection.connection.dbapi_connection
        return await_only(_begin_by_asyncpg(adapter, driver, query, setting))
    command = type(driver)._get_tx_start_command(driver)
    for statement in filter(None, (setting, query)):
        command += f"; {statement}".encode()
    return send_by_psycopg(driver, command)


def set_autocommit(pooled: Any, value: object) -> None:
    """Let the driver send no BEGIN by itself, or let it again; no I/O.

    *pooled* is the connection of the pool, outside of a transaction. psycopg's own
    method would take a lock, and its async one an await.
    """
    driver = pooled.driver_connection
    if hasattr(driver, "_autocommit"):
        driver._autocommit = value
    else:
        pooled.dbapi_connection.autocommit = value


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
        await_only(driver.execute("ROLLBACK"))
    else:
        connection.connection.rollback()


async def _begin_by_asyncpg(
    adapter: Any, driver: Any, query: str, setting: str
) -> str | None:
    async with adapter._execute_mutex:
        try:
            transaction = driver.transaction(
                isolation=adapter.isolation_level,
                readonly=adapter.readonly,
                deferrable=adapter.deferrable,
            )
            beginning = None
            if query or setting:
                beginning = _Beginning(driver, query, setting)
                transaction._connection = beginning
            await transaction.start()
            transaction._connection = driver
        except Exception as error:
            adapter._handle_exception(error)
            raise
        adapter._transaction = transaction
        if hasattr(adapter, "_started"):  # SQLAlchemy 2.0
            adapter._started = True
    return None if beginning is None else beginning.value


class _Beginning(AsyncpgStandIn):
    """Sends BEGIN with a setting and a query, and keeps the value that it selects."""

    query: str
    setting: str
    value: str | None

    __slots__ = ("query", "setting", "value")

    def __init__(self, driver: Any, query: str, setting: str) -> None:
        keep(self, "driver", driver)
        keep(self, "query", query)
        keep(self, "setting", setting)
        keep(self, "value", None)

    async def execute(self, statement: str) -> None:
        if self.setting:
            statement += f" {self.setting};"
        if self.query:
            value = await copy_by_asyncpg(self.driver, statement, self.query)
            keep(self, "value", value)
        else:
            await self.driver.execute(statement)
