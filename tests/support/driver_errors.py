"""Errors as each driver raises them, made without a database."""

from __future__ import annotations

import asyncpg
from sqlalchemy import exc


def driver_error(driver: str, *args: object, **attributes: object) -> Exception:
    """An exception as *driver*, which is not installed here, would raise it."""
    body = {"__module__": driver, **attributes}
    return type("DatabaseError", (Exception,), body)(*args)


def postgresql(code: str, text: str = "no", severity: str = "ERROR") -> Exception:
    fields = {"S": severity, "V": severity, "C": code, "M": text}
    error: Exception = asyncpg.PostgresError.new(fields)
    return error


def sqlite(code: int) -> Exception:
    return driver_error("sqlite3", "no", sqlite_errorcode=code)


def wrapped(orig: Exception, *, lost: bool = False) -> exc.DBAPIError:
    return exc.DBAPIError("SELECT 1", {}, orig, connection_invalidated=lost)
