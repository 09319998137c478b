"""How the transaction of a unit begins: at once, and with the id that identifies it.

On PostgreSQL BEGIN is sent when the session connects. So whatever passes through the
driver's connection afterwards is part of the transaction, and a pooled connection that
the server has dropped is noticed before anything can be lost: it is replaced, once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.pool import StaticPool

from .._classify.classification import classify
from .._driver import postgresql_begin
from .._driver.driver_connection import has_input, in_transaction
from .._driver.mysql_status import commits_each
from .._driver.sqlalchemy_internals import is_autocommit, reconnect
from .._patterns import pattern
from .._sql.sql_text import MYSQL
from ..errors import UsageError
from .commit_status import Mark, installation_of
from .connection_state import INFO_KEY, ConnectionState, known_state
from .demotion import has_transaction_ids
from .loan import Loan
from .pooler import check_mode

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "begin_on",
    "begin_to_read",
    "is_unusable",
    "lend",
    "prepare_first_statement",
    "replace_connection",
    "was_dropped",
]

_ID = "SELECT CASE WHEN pg_is_in_recovery() THEN '' ELSE txid_current()::text END"
_COMMITS_EACH = (
    "the driver's connection is in autocommit mode, so that nothing can be rolled "
    "back: leave autocommit=True out of connect_args, and autocommit=true out of the "
    "URL. For reads there is isolation_level='AUTOCOMMIT'"
)
_COMES_BEFORE_QUERIES = pattern(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
    r"(?:set\s+(?:(?:local|session)\s+)?(?:transaction|characteristics)|lock\b)",
    re.IGNORECASE | re.DOTALL,
)


def lend(connection: Connection) -> ConnectionState:
    """Start a new loan of *connection*; no I/O. Returns the state with that loan.

    Not if `begin_to_read()` just has, or if nothing has used the one of its checkin.
    """
    proxy = connection.connection
    known: ConnectionState | None = proxy.info.get(INFO_KEY)
    state = known or known_state(connection)
    loan = state.loan
    if loan.begun_with_id and loan.holder is None and loan.is_open:
        return state
    if state.counts_changes or not loan.is_unused:
        loan = state.lend()
    if isinstance(connection.engine.pool, StaticPool):
        loan.proxy = ref(proxy)
    return state


def begin_on(connection: Connection, state: ConnectionState, *, with_id: bool) -> Loan:
    """Begin a transaction on *connection*, where that is not left to the driver.

    *state* is that of the connection, and its loan that of the transaction. With
    *with_id* the transaction can be verified later: its id comes with the answer to
    BEGIN, in the same round trip. Returns the loan, of another connection if this one
    was dropped. Raises `DBAPIError` if the server is out of reach.
    """
    loan = state.loan
    # The second is for a connection that was lost: see `transaction_probe()`.
    if state.in_transaction() and in_transaction(state.driver_connection):
        loan.has_begun()
        return loan
    dialect = connection.dialect
    if dialect.name in MYSQL and commits_each(state.driver_connection):
        _check_wanted(connection)
    if dialect.name != "postgresql" or dialect.driver not in postgresql_begin.DRIVERS:
        return loan  # as `begins()`
    try:
        if is_autocommit(connection):
            check_mode(connection)
            if not state.is_new and has_input(state.driver_connection):
                reconnect(connection)
            state.is_new = False
            return known_state(connection).loan
        try:
            return _begin(connection, state, with_id=with_id)
        except Exception as error:
            begin = partial(_begin, with_id=with_id)
            return _begin_again(connection, state, begin, error)
    except BaseException:  # BEGIN may arrive yet
        with suppress(InvalidRequestError):  # closed meanwhile
            connection.invalidate()
        raise


def _check_wanted(connection: Connection) -> None:
    """Raise `UsageError` if the driver is in autocommit mode, and SQLAlchemy is not."""
    if not is_autocommit(connection):
        raise UsageError(_COMMITS_EACH)


def begin_to_read(connection: Connection, query: str, setting: str = "") -> str | None:
    """Begin, with *query* in the same message; return the value that it selects.

    *setting* is the `first_setting` of the loan that starts now. `None` if the server
    refuses the query, and where BEGIN is left to the driver.
    Raises `DBAPIError` if the server is out of reach.
    """
    state = known_state(connection)
    state.lend().first_setting = setting
    if not postgresql_begin.begins(connection) or is_autocommit(connection):
        return None
    values: list[str | None] = [None]

    def begin(connection: Connection, state: ConnectionState) -> Loan:
        driver = state.driver_connection
        try:
            values[0] = postgresql_begin.begin(connection, driver, query, setting)
        except connection.dialect.loaded_dbapi.Error:
            if not query or not postgresql_begin.query_failed(connection):
                raise
            postgresql_begin.roll_back_begin(connection)
            postgresql_begin.begin(connection, driver, "", setting)
        state.loan.has_begun()
        state.loan.begun_with_id = True  # some query has come with BEGIN
        state.is_new = False
        return state.loan

    try:
        begin(connection, state)
    except Exception as error:
        _begin_again(connection, state, begin, error)
    return values[0]


def prepare_first_statement(connection: Connection, loan: Loan, statement: str) -> None:
    """Begin again, without the id, for a *statement* that must precede all queries.

    Not if the driver was used before: settings, locks and writes would be lost.
    """
    loan.begun_with_id = False
    if not _COMES_BEFORE_QUERIES.match(statement):
        return
    if not loan.was_bypassed:
        postgresql_begin.roll_back_begin(connection)
        driver, setting = loan.driver_connection, loan.first_setting
        postgresql_begin.begin(connection, driver, "", setting)
        loan.mark = None


def _begin_again(
    connection: Connection,
    state: ConnectionState,
    begin: Callable[[Connection, ConnectionState], Loan],
    error: Exception,
) -> Loan:
    """Begin on a new connection, if *error* means that the server has dropped this one.

    Raises the error otherwise, as SQLAlchemy raises that of a statement.
    """
    if not was_dropped(connection, state, error):
        raise _wrapped(connection, error) from error
    try:
        state = replace_connection(connection)
        if not in_transaction(state.driver_connection):
            return begin(connection, state)
    except Exception as another:
        raise _wrapped(connection, another) from another
    # A listener to the checkout of a new connection has begun one.
    state.loan.has_begun()
    state.is_new = False
    return state.loan


def replace_connection(connection: Connection) -> ConnectionState:
    """Open another one in place of one that the server has dropped: the loan goes on.

    Nothing may have been sent on it, or nothing but a read.
    """
    before = known_state(connection)
    loan = before.loan
    before.lend()
    reconnect(connection)
    state = known_state(connection)
    state.adopt(loan)
    return state


def was_dropped(
    connection: Connection, state: ConnectionState, error: Exception
) -> bool:
    """Whether the server has dropped a pooled *connection*: another may be used.

    Not if *error* is an answer of the server's that leaves the connection open.
    """
    if state.is_new or state.aborted_by_client:
        return False
    return is_unusable(connection, error)


def is_unusable(connection: Connection, error: Exception) -> bool:
    """Whether *error* is no answer of the server's, or one that ends the connection."""
    found = classify(error)
    if found.code is None or found.disconnected:
        return True
    pooled: Any = connection.connection.dbapi_connection
    dialect: Any = connection.dialect
    return bool(dialect.is_disconnect(error, pooled, None))


def _begin(connection: Connection, state: ConnectionState, *, with_id: bool) -> Loan:
    loan, mark = state.loan, None
    dialect, driver = connection.dialect, state.driver_connection
    setting = loan.first_setting
    if with_id and state.installation is None and state.has_ids:
        state.has_ids = has_transaction_ids(driver)
    if not with_id or not state.has_ids:
        postgresql_begin.begin(connection, driver, "", setting)
    else:
        try:
            txid = postgresql_begin.begin(connection, driver, _ID, setting)
        except dialect.loaded_dbapi.Error:
            if not postgresql_begin.query_failed(connection):
                raise
            postgresql_begin.roll_back_begin(connection)
            state.has_ids = False
            return _begin(connection, state, with_id=False)
        loan.begun_with_id = True
        if txid is not None:
            mark = Mark(int(txid), installation_of(connection))
    loan.has_begun(mark)
    state.is_new = False
    return loan


def _wrapped(connection: Connection, error: Exception) -> BaseException:
    """The error as SQLAlchemy raises it for a statement."""
    dialect = connection.dialect
    return DBAPIError.instance(
        "BEGIN", None, error, dialect.loaded_dbapi.Error, dialect=dialect
    )
