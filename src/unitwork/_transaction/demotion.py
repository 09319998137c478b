"""What reports and errors show of a server: demoted, without a quorum, of another kind.

Sources: PostgreSQL, "Hot Standby" and "default_transaction_read_only"; MariaDB,
"read_only" and "Galera Cluster Status Variables"; YugabyteDB, "YSQL architecture".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._classify.classification import Classification
    from .loan import Loan

__all__ = ["has_transaction_ids", "refuses_to_write"]

_IS_READ_ONLY = ("in_hot_standby", "default_transaction_read_only")
"""What PostgreSQL reports to each connection, and again when it changes (from 14)."""
_NO_PRIMARY_COMPONENT = 1047
_READ_ONLY = (1290, 1836)
_YUGABYTE = "-YB-"


def refuses_to_write(found: Classification, loan: Loan) -> bool:
    """Whether *found* means that no transaction can write on this server. No I/O.

    Not if only the transaction of *loan* is read-only. PostgreSQL before 14 and most
    poolers don't report enough to tell that apart: there `True`.
    """
    if found.family == "mysql":
        if found.code == _NO_PRIMARY_COMPONENT:
            return True
        return found.code in _READ_ONLY and "read" in str(found.error).lower()
    if (found.family, found.code) != ("postgresql", "25006"):
        return False
    if loan.read_only or loan.client_side_read_only:
        return False
    driver: Any = loan.driver_connection
    reported = [_reported(driver, name) for name in _IS_READ_ONLY]
    return "on" in reported or None in reported


def has_transaction_ids(driver_connection: Any) -> bool:
    """Whether ids of PostgreSQL identify transactions on this server. No I/O.

    YugabyteDB has functions for them, and another storage, in which they mean nothing.
    """
    version = _reported(driver_connection, "server_version")
    return version is None or _YUGABYTE not in version


def _reported(driver_connection: Any, name: str) -> str | None:
    """The value of a setting that the server has reported; `None` if it has not."""
    libpq = getattr(driver_connection, "pgconn", None)  # psycopg
    if libpq is not None:
        value: bytes | None = libpq.parameter_status(name.encode())
        return None if value is None else value.decode()
    settings = getattr(driver_connection, "get_settings", dict)  # asyncpg
    return getattr(settings(), name, None)
