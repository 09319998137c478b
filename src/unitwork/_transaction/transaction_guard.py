"""Whether a transaction of MySQL or MariaDB is still the same one: it is queried.

Neither has an identifier of transactions. But a savepoint ends with its transaction,
whatever ends that: COMMIT, a statement that commits what came before it, a procedure,
a deadlock whose error a procedure has handled. So a savepoint is set before a statement
that may end a transaction and begin another one. If it can't be released after it, the
transaction was another one.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .._classify.driver_errors import read
from .._driver.mysql_status import commits_each, has_more_results

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import Dialect

    from .loan import Loan

__all__ = ["is_replaced", "set_guard"]

_SET = "SAVEPOINT unitwork_guard"
_RELEASE = "RELEASE SAVEPOINT unitwork_guard"
_DOES_NOT_EXIST = 1305


def set_guard(connection: Connection, loan: Loan) -> None:
    """Set the savepoint in the transaction of *loan*, which it does not begin."""
    if loan.holder is None or commits_each(loan.driver_connection):
        return
    # The statement that follows fails as well, if the connection is lost.
    with suppress(connection.dialect.loaded_dbapi.Error):
        _send(connection.connection, _SET)
        loan.has_guard = True
        loan.guard_is_older = not loan.is_open  # it is set before one begins


def is_replaced(dialect: Dialect, pooled: Any, loan: Loan) -> bool:
    """Whether the transaction in which the savepoint was set has ended.

    If it was set before a transaction began, that one has not; but what has ended is
    recorded: it may have stored something.

    *pooled* is the connection of the pool. One round trip if a savepoint is set; raises
    the error of the driver if the connection is lost.
    """
    if not loan.has_guard:
        return False
    loan.has_guard = False
    if has_more_results(loan.driver_connection):
        # Their errors, which the driver raises now, are recorded as late ones.
        with suppress(dialect.loaded_dbapi.Error):
            dialect.do_ping(pooled)
    loan.begin_statement()
    try:
        _send(pooled, _RELEASE)
    except dialect.loaded_dbapi.Error as error:
        found = read(error)  # itself, and not an error before it
        if found is None or found.code != _DOES_NOT_EXIST:
            raise
        dialect.do_ping(pooled)  # an error has no transaction status
        if not loan.guard_is_older:
            return True
        loan.has_stored = True
    finally:
        loan.end_statement()
    return False


def _send(pooled: Any, sql: str) -> None:
    cursor = pooled.cursor()
    try:
        cursor.execute(sql)
    finally:
        cursor.close()
