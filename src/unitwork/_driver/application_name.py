"""The name of the application, as PostgreSQL shows it in `pg_stat_activity`.

It is set in the message of BEGIN, by a statement that takes no snapshot, and ends with
the transaction. Source: PostgreSQL, "Error Reporting and Logging", `application_name`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._patterns import pattern
from ..errors import UsageError
from .postgresql_begin import DRIVERS

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["check_name_can_be_set", "setting_of"]

_UNSAFE = pattern(r"[^ -~]|['\\\\]")
_LONGEST = 63  # bytes; the server cuts off the rest


def setting_of(name: str) -> str:
    """The statement that sets *name* until the transaction ends; empty without one.

    Characters that are not ASCII, quotes and backslashes become `_`.
    """
    cleaned = _UNSAFE.sub("_", name)[:_LONGEST]
    return f"SET LOCAL application_name = '{cleaned}'" if cleaned else ""


def check_name_can_be_set(engine: Engine) -> None:
    """Raise `UsageError` if it would take a round trip, or if there is no such name."""
    dialect = engine.dialect
    if dialect.name != "postgresql" or dialect.driver not in DRIVERS:
        raise UsageError(
            "application_name is set, and is for PostgreSQL with asyncpg or psycopg "
            f"only, not for {dialect.name}+{dialect.driver}: leave it out"
        )
