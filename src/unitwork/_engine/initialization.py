"""The first connection of an engine, by which SQLAlchemy gets to know the server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import Dialect

__all__ = ["raise_cancellations"]


def raise_cancellations(dialect: Dialect) -> None:
    """Raise a cancellation while an async *dialect* is initialized as what it is.

    SQLAlchemy replaces it by a `ResourceClosedError` or a `NotImplementedError`.
    """
    if not dialect.is_async:
        return

    def initialize(connection: Connection) -> None:
        dialect = connection.dialect
        before = _cancellations()
        try:
            type(dialect).initialize(dialect, connection)
        except Exception as error:
            if _cancellations() > before:
                raise asyncio.CancelledError from error
            raise

    setattr(dialect, "initialize", initialize)  # noqa: B010  # of this object alone


def _cancellations() -> int:
    """How often the current task has been cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
