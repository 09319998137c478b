"""Real databases in place of that of one engine, lent to one test each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from .._driver.sqlalchemy_internals import root_engine
from .._unit.database_base import DatabaseBase, core_of
from ..errors import UsageError
from .mariadb import MariaDBProvisioner
from .postgresql import PostgreSQLProvisioner
from .provisioning import ProvisionedDatabase, Provisioner, Provisioning, new_key
from .routes import Route, routed
from .schema import SchemaSource, schema_of
from .sqlite import SQLiteProvisioner
from .warm_pool import WarmPool

__all__ = ["LentDatabase", "RealDatabases", "engine_of", "redirected"]

_PROVISIONERS: dict[str, Callable[[Provisioning], Provisioner]] = {
    "postgresql": PostgreSQLProvisioner,
    "sqlite": SQLiteProvisioner,
    "mysql": MariaDBProvisioner,
    "mariadb": MariaDBProvisioner,
}


def engine_of(given: DatabaseBase | Engine) -> Engine:
    """The engine of a database, or one that an application uses by itself."""
    if isinstance(given, DatabaseBase):
        given = core_of(given).factory.engine
    return root_engine(getattr(given, "sync_engine", given))


class LentDatabase:
    """A real database that is in use, until it is given back."""

    def __init__(self, database: ProvisionedDatabase, pool: WarmPool) -> None:
        self._database = database
        self._pool = pool

    @property
    def url(self) -> URL:
        return self._database.url

    @property
    def address(self) -> str:
        """Where to find it once it is kept: a URL, without the password."""
        return self._database.address

    def give_back(self, *, keep: bool = False) -> None:
        """Have it removed, or leave it to the user."""
        self._pool.give_back(self._database, keep=keep)


class RealDatabases:
    """Lends real databases in place of that of an engine, made ahead.

    Lives as long as a session of tests. Safe to use from several threads.
    """

    def __init__(
        self,
        given: DatabaseBase | Engine,
        schema: SchemaSource,
        *,
        key: str | None = None,
    ) -> None:
        self.engine = engine = engine_of(given)
        kind = _PROVISIONERS.get(engine.dialect.name)
        if kind is None:
            raise UsageError(
                "tests with a real database need PostgreSQL, MariaDB or SQLite, and "
                f"this is {engine.dialect.name}"
            )
        provisioning = Provisioning(
            url=engine.url,
            schema=schema_of(schema, engine.url),
            redirected_to=partial(redirected, engine),
            key=key or new_key(),
            run=os.environ.get("PYTEST_XDIST_TESTRUNUID"),
        )
        self._pool = WarmPool(partial(kind, provisioning))

    def take(self) -> LentDatabase:
        """Wait until there is one. Raises what its making has raised."""
        return LentDatabase(self._pool.take(), self._pool)

    def close(self) -> None:
        """Remove all of them but those to keep."""
        self._pool.close()


@contextmanager
def redirected(engine: Engine, url: URL) -> Iterator[None]:
    """Let what *engine* connects to in this context be *url*."""
    route = Route(engine, url)
    try:
        with routed(route):
            yield
    finally:
        route.close()
