"""Calls of the driver's own connection, inside the transaction of a session."""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import Any

from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

INSERT = "INSERT INTO item (name) VALUES ('by the driver')"

__all__ = ["INSERT", "call_driver", "send", "send_and_swallow"]


def send(session: Session, sql: str) -> None:
    """Send *sql* past SQLAlchemy; in a greenlet, if the driver is async."""
    driver: Any = session.connection().connection.driver_connection
    call = getattr(driver, "query", None) or driver.execute  # MySQL's drivers
    _settle(call(sql))


def call_driver(session: Session, method: str) -> None:
    """Call a *method* of the driver's connection that takes no arguments."""
    driver: Any = session.connection().connection.driver_connection
    _settle(getattr(driver, method)())


def _settle(result: object) -> None:
    if inspect.isawaitable(result):
        await_only(result)


def send_and_swallow(session: Session, sql: str) -> None:
    with suppress(Exception):
        send(session, sql)
