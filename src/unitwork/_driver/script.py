"""Sends several statements at once, past SQLAlchemy: in one message where that goes.

The private parts of the drivers that this needs are the same in all their versions that
unitwork supports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.util import await_only

from .postgresql_messages import send_by_psycopg

__all__ = ["send_script"]


def send_script(dbapi_connection: Any, statements: Sequence[str]) -> None:
    """Execute *statements*, which have no parameters and return nothing of interest.

    Call it in a greenlet of SQLAlchemy's if the driver is async. Raises what its
    adapter raises. What follows a statement that fails is not executed.
    """
    driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    if hasattr(driver, "copy_from_query"):  # asyncpg
        await_only(_send_by_asyncpg(dbapi_connection, driver, "; ".join(statements)))
    elif hasattr(driver, "pgconn"):
        send_by_psycopg(driver, "; ".join(statements).encode())
    else:
        cursor = dbapi_connection.cursor()
        try:
            for statement in statements:
                cursor.execute(statement)
        finally:
            cursor.close()


async def _send_by_asyncpg(adapter: Any, driver: Any, script: str) -> None:
    async with adapter._execute_mutex:
        try:
            await driver.execute(script)
        except Exception as error:
            adapter._handle_exception(error)
