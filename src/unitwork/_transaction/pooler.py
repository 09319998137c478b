"""Behind a pooler that hands a server connection to another client at each COMMIT.

Nothing may be kept on that connection: no prepared statement, no session-level state.

Sources: PgBouncer, "Features" and `max_prepared_statements`; asyncpg, "Frequently Asked
Questions"; psycopg, "Prepared statements"; PostgreSQL, "Extended Query".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sqlalchemy import event

from ..errors import UsageError
from .session_reset import refuse_traces

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import Dialect

__all__ = ["check_mode", "keep_nothing"]

_AUTOCOMMIT = (
    "{} can't be used with asyncpg and "
    "transaction_pooler=True: asyncpg prepares each statement, and outside of a "
    "transaction the pooler may execute it on another server. Use {}"
)
_behind_pooler: WeakSet[Dialect] = WeakSet()


def keep_nothing(engine: Engine) -> None:
    """Let *engine* keep nothing on a server connection when a transaction ends.

    Its new connections prepare no statements beyond a transaction, and its units raise
    `UsageError` for session-level state. Raises `UsageError` for another database than
    PostgreSQL.
    """
    dialect = engine.dialect
    if dialect.name != "postgresql":
        raise UsageError(
            f"transaction_pooler is set, and is for PostgreSQL only; {dialect.name} "
            "needs no setting"
        )
    if dialect in _behind_pooler:
        return
    _behind_pooler.add(dialect)
    refuse_traces(dialect)
    event.listen(engine, "do_connect", _prepare_nothing)


def check_mode(
    connection: Connection,
    mode: str = "isolation_level='AUTOCOMMIT'",
    remedy: str = "read_only=True",
) -> None:
    """Raise `UsageError` if *connection* can't work behind a pooler in this *mode*.

    That is one without transactions; *remedy*: what to use in its place.
    """
    dialect = connection.dialect
    if dialect.driver == "asyncpg" and dialect in _behind_pooler:
        raise UsageError(_AUTOCOMMIT.format(mode, remedy))


def _prepare_nothing(
    dialect: Dialect, record: object, arguments: Any, options: dict[str, Any]
) -> None:
    if dialect.driver in ("psycopg", "psycopg_async"):
        options.setdefault("prepare_threshold", None)
    elif dialect.driver == "asyncpg":
        options.setdefault("statement_cache_size", 0)
        options.setdefault("prepared_statement_cache_size", 0)
        options.setdefault("prepared_statement_name_func", _no_name)


def _no_name() -> str:
    """That of the statement which the next one replaces, and asyncpg sends again.

    asyncpg closes one with a name when it prepares another: then the pooler may have
    given the server connection to another client, and it would stay there.
    """
    return ""
