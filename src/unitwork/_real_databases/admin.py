"""A connection of its own to a server, for statements about whole databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from .._engine.begin import OF_UNITWORK

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["Admin"]

T = TypeVar("T")


class Admin:
    """One connection, sync also with an async driver; by default in AUTOCOMMIT.

    Opened and used in one thread, without a running event loop.
    """

    def __init__(self, url: URL, *, autocommit: bool = True) -> None:
        self.url = url
        self._runner: asyncio.Runner | None = None
        self._connection: Connection | None = None
        self._async_connection: AsyncConnection | None = None
        options: dict[str, Any] = {
            "poolclass": NullPool,
            "execution_options": OF_UNITWORK,  # they are no statements of a test
        }
        if autocommit:
            options["isolation_level"] = "AUTOCOMMIT"
        if not url.get_dialect().is_async:
            self._connection = create_engine(url, **options).connect()
            return
        from sqlalchemy.ext.asyncio import create_async_engine  # needs greenlet

        async def connect() -> AsyncConnection:
            return await create_async_engine(url, **options).connect()

        self._runner = asyncio.Runner()
        try:
            self._async_connection = self._runner.run(connect())
        except BaseException:
            self._runner.close()
            raise

    def run(self, job: Callable[[Connection], T]) -> T:
        """Call *job* with the connection."""
        if self._connection is not None:
            return job(self._connection)
        assert self._runner is not None
        assert self._async_connection is not None
        return self._runner.run(self._async_connection.run_sync(job))

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Execute *statement*, in the style of the driver; return its rows."""

        def execute(connection: Connection) -> list[tuple[Any, ...]]:
            result = connection.exec_driver_sql(statement, parameters or None)
            return [tuple(row) for row in result] if result.returns_rows else []

        return self.run(execute)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._runner is not None and self._async_connection is not None:
            self._runner.run(self._async_connection.close())
            self._runner.close()
