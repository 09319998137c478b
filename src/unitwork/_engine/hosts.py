"""A URL of MySQL or MariaDB with several hosts: `mysql+asyncmy:///shop?host=a&host=b`.

libpq and asyncpg have this for PostgreSQL; the drivers of MySQL have not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import event

from .._sql.sql_text import MYSQL
from ..errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL, Dialect

__all__ = ["Host", "connect_to_first", "hosts_of"]

_PORT = 3306
_READ_ONLY = 1290
_IS_READ_ONLY = "SELECT @@GLOBAL.read_only"
"""A node of Galera without a quorum refuses to answer it."""


class Host(NamedTuple):
    """One of the servers of a database."""

    name: str
    port: int


def hosts_of(url: URL) -> tuple[URL, Sequence[Host]]:
    """Return *url* with its first host alone, and all of them if there are several."""
    given = url.query.get("host")
    if url.get_backend_name() not in MYSQL or given is None:
        return url, ()
    names = [given] if isinstance(given, str) else given
    hosts = [_host(each) for name in names for each in name.split(",")]
    single = url.difference_update_query(["host"])
    return single.set(host=hosts[0].name, port=hosts[0].port), hosts


def _host(given: str) -> Host:
    name, _, port = given.strip().partition(":")
    if not name or not (port or "0").isdecimal():
        raise UsageError(
            f"the database URL has the host {given!r}; write host=name:port, and that "
            "once for each server"
        )
    return Host(name, int(port or _PORT))


def connect_to_first(engine: Engine, hosts: Sequence[Host]) -> None:
    """Let *engine* connect to the first of *hosts* that is up and accepts writes."""
    event.listen(engine, "do_connect", partial(_connect, hosts))


def _connect(
    hosts: Sequence[Host],
    dialect: Dialect,
    record: object,
    arguments: Sequence[Any],
    options: Mapping[str, Any],
) -> Any:
    errors = dialect.loaded_dbapi.Error, OSError
    failure: Exception | None = None
    for host in hosts:
        there = {**options, "host": host.name, "port": host.port}
        try:
            connection = dialect.connect(*arguments, **there)
            if _accepts_writes(connection):
                return connection
        except errors as error:
            failure = error
    if failure is None:
        failure = dialect.loaded_dbapi.OperationalError(
            _READ_ONLY, "each of the hosts is read-only"
        )
    raise failure


def _accepts_writes(connection: Any) -> bool:
    """Whether the server of *connection* does; else it is closed."""
    try:
        cursor = connection.cursor()
        cursor.execute(_IS_READ_ONLY)
        ((is_read_only,),) = cursor.fetchall()
        cursor.close()
        connection.rollback()
    except BaseException:
        connection.close()
        raise
    if is_read_only:
        connection.close()
    return not is_read_only
