"""How many connections a server allows, and for how many full pools that is enough."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from .._sql.sql_text import MYSQL
from ..errors import UsageError
from .database_core import PoolStatus

__all__ = ["ConnectionLimit", "connection_limit"]

# Rows of other users have no backend_type, unless the role may read all statistics.
_POSTGRESQL = text("""
    SELECT current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int,
        (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
        (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
        (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL
            AND coalesce(backend_type, 'client backend') = 'client backend')
""")
_ON_MYSQL = text("SELECT @@max_connections, @@max_user_connections")
_MYSQL_IN_USE = text("SHOW GLOBAL STATUS LIKE 'Threads_connected'")


class ConnectionLimit(NamedTuple):
    """The connections of a database server.

    *allowed*: how many the user of the session may open at most: the least of the
    limits of server, database and user, without those reserved for others;
    *in_use*: how many all clients of the server have open.

    .. versionadded:: 0.2
    """

    allowed: int
    in_use: int

    def processes(self, pool: PoolStatus) -> int:
        """Return for how many processes with such a pool, when full, that is enough.

        Halve it if the processes of two releases run side by side during a deployment.
        Raises `UsageError` if the pool has no limit.

        .. versionadded:: 0.2
        """
        if pool.size is None:
            raise UsageError(
                "the pool opens any number of connections (NullPool, max_overflow=-1),"
                " so no limit of the server is enough; give it pool_size and "
                "max_overflow"
            )
        return self.allowed // pool.size


def connection_limit(session: Session | Connection) -> ConnectionLimit:
    """Query the server how many connections it allows. For capacity checks.

    One statement (two on MariaDB) in the transaction of *session*. With an
    `AsyncSession` write `await session.run_sync(connection_limit)`. Behind a pooler
    such as PgBouncer these are the connections of the server, which the pooler opens,
    and not those that the application opens. Raises `UsageError` on SQLite, which has
    no such limit.

    .. versionadded:: 0.2
    """
    connection = session.connection() if isinstance(session, Session) else session
    dialect = connection.dialect.name
    if dialect == "postgresql":
        *limits, in_use = connection.execute(_POSTGRESQL).one()
        return ConnectionLimit(min(each for each in limits if each >= 0), in_use)
    if dialect in MYSQL:
        limits = list(connection.execute(_ON_MYSQL).one())
        in_use = connection.execute(_MYSQL_IN_USE).one()[1]
        return ConnectionLimit(min(each for each in limits if each > 0), int(in_use))
    raise UsageError(f"{dialect} has no limit of connections that can be queried")
