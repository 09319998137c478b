"""MariaDB's position after COMMIT, and questions to its replicas.

The questions pass SQLAlchemy, begin no transaction, and take no snapshot.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .._driver.driver_connection import has_input
from .._driver.gtids import Gtids, read_gtids
from .connection_state import known_state
from .unit_begin import is_unusable, replace_connection, was_dropped

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import Dialect

    from .loan import Loan

__all__ = [
    "fetch_committed",
    "fetch_first_row",
    "fetch_row",
    "is_mariadb",
    "replace_if_dropped",
]

_COMMITTED = "SELECT @@last_gtid"


def is_mariadb(dialect: Dialect) -> bool:
    """Whether the server is known to be MariaDB, and not MySQL."""
    return bool(getattr(dialect, "is_mariadb", False))


def fetch_committed(dbapi_connection: Any, loan: Loan) -> Gtids | None:
    """The last transaction of the connection, in a round trip; `None`: not known.

    Without a binary log there is none. Raises nothing of the driver's: the work is
    committed, whatever happens to the connection now.
    """
    loan.begin_statement()
    try:
        return read_gtids(str(_fetch(dbapi_connection, _COMMITTED).popitem()[1]))
    except Exception:
        return None
    finally:
        loan.end_statement()


def fetch_row(connection: Connection, query: str) -> dict[str, Any] | None:
    """The first row that *query* gives, by the names of its columns.

    Empty if there is none, `None` if the server refuses the query. Raises the error of
    the driver if the connection is lost.
    """
    try:
        return _fetch(connection.connection, query)
    except connection.dialect.loaded_dbapi.Error as error:
        if is_unusable(connection, error):
            raise
        return None


def fetch_first_row(connection: Connection, query: str) -> dict[str, Any] | None:
    """What `fetch_row()` returns; if the server has dropped *connection*, by a new one.

    The connection must not have been used since it was taken from the pool.
    """
    replace_if_dropped(connection)
    try:
        return fetch_row(connection, query)
    except Exception as error:
        if not was_dropped(connection, known_state(connection), error):
            raise
    replace_connection(connection)
    return fetch_row(connection, query)


def replace_if_dropped(connection: Connection) -> None:
    """Open another connection if the server has closed this one; no I/O if not."""
    state = known_state(connection)
    if not state.is_new and has_input(state.driver_connection):
        replace_connection(connection)


def _fetch(dbapi_connection: Any, query: str) -> dict[str, Any]:
    cursor = dbapi_connection.cursor()
    try:
        cursor.execute(query)
        names = [column[0] for column in cursor.description]
        rows = cursor.fetchall()
    finally:
        with suppress(Exception):
            cursor.close()
    return dict(zip(names, rows[0], strict=True)) if rows else {}
