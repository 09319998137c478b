"""Messages of PostgreSQL's simple protocol, several statements in one, by each driver.

The private parts of the drivers that this needs are the same in all their versions that
unitwork supports.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any

from sqlalchemy.util import await_only

from .driver_connection import transport_of

__all__ = [
    "AsyncpgStandIn",
    "all_by_psycopg",
    "copy_by_asyncpg",
    "fetch_value",
    "generate_by_psycopg",
    "keep",
    "raise_error_in",
    "send_by_psycopg",
]

_FATAL_ERROR = 7  # libpq, ExecStatusType


def fetch_value(driver: Any, query: str) -> str | None:
    """The value that *query* selects, outside a transaction, in one message."""
    if hasattr(driver, "copy_from_query"):
        value: str | None = _awaited(copy_by_asyncpg(driver, "", query))
        return value
    return send_by_psycopg(driver, query.encode())


def send_by_psycopg(driver: Any, command: bytes) -> str | None:
    """Send *command* by psycopg, sync or async; return the value of the last result.

    Call it in a greenlet of SQLAlchemy's if the driver is async.
    """
    if hasattr(driver, "__aenter__"):
        result = _awaited(_wait_async(driver, command))
    else:
        with driver.lock:
            result = driver.wait(generate_by_psycopg(driver, command))
    return result.get_value(0, 0).decode() or None if result.ntuples else None


async def _wait_async(driver: Any, command: bytes) -> Any:
    async with driver.lock:
        return await driver.wait(generate_by_psycopg(driver, command))


def generate_by_psycopg(driver: Any, command: bytes) -> Generator[Any, Any, Any]:
    """Send *command* to libpq, as psycopg sends its own; return the last result."""
    results = yield from all_by_psycopg(driver, command)
    raise_error_in(results)
    return results[-1]


def all_by_psycopg(driver: Any, command: bytes) -> Generator[Any, Any, list[Any]]:
    """Send *command* to libpq; return the results, of which the last may be an error.

    Of several statements those after the one that has failed have none.
    """
    from psycopg import generators

    driver._check_connection_ok()
    driver.pgconn.send_query(command)
    results: list[Any] = yield from generators.execute(driver.pgconn)
    return results


def raise_error_in(results: list[Any]) -> None:
    from psycopg import errors

    for result in results:
        if result.status == _FATAL_ERROR:
            raise errors.error_from_result(result)


async def copy_by_asyncpg(driver: Any, statement: str, query: str) -> str | None:
    """Send *statement* and *query* in one message; return the value of the latter."""
    rows: list[bytes] = []

    async def receive(data: bytes) -> None:
        rows.append(data)

    # The simple protocol: one message, and COPY gives the row back.
    copied = f"{statement} COPY ({query}) TO STDOUT"
    # asyncpg pauses the transport while rows are received: two system calls, for one.
    transport: dict[str, Any] = getattr(transport_of(driver), "__dict__", {})
    transport["pause_reading"] = transport["resume_reading"] = _read_on
    try:
        await driver._protocol.copy_out(copied, receive, None)
    finally:
        transport.pop("pause_reading", None)
        transport.pop("resume_reading", None)
    return b"".join(rows).decode().strip() or None


def _read_on() -> None: ...


keep = object.__setattr__
"""Sets an attribute of a stand-in, and not of the connection."""


class AsyncpgStandIn:
    """In place of the connection of an asyncpg transaction, for one statement.

    A subclass says how it is executed; all else is done by the *driver*'s connection.
    """

    driver: Any

    __slots__ = ("driver",)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.driver, name, value)


def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await_only(awaitable)
