"""Real databases for tests: what a test may be given, as a pool for each database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from .._engine.sqlalchemy_internals import root_engine
from .._unit.database_base import DatabaseBase, core_of
from ..errors import UsageError
from .made import MadeDatabase, Maker
from .mariadb_maker import MariaDBMaker
from .postgresql_maker import PostgreSQLMaker
from .routes import Route, routed
from .schema import SchemaSource, schema_of
from .sqlite_maker import SQLiteMaker
from .warm_pool import WarmPool

__all__ = ["RealDatabases"]

_MAKERS: dict[str, Any] = {
    "postgresql": PostgreSQLMaker,
    "sqlite": SQLiteMaker,
    "mysql": MariaDBMaker,
    "mariadb": MariaDBMaker,
}


def engine_of(source: DatabaseBase | Engine) -> Engine:
    """The engine of a database, or one that an application uses by itself."""
    if isinstance(source, DatabaseBase):
        source = core_of(source).factory.engine
    return root_engine(getattr(source, "sync_engine", source))


class RealDatabases:
    """Gives tests real databases in place of that of *source*, made ahead.

    Lives as long as a session of tests. Safe to use from several threads.
    """

    def __init__(
        self,
        source: DatabaseBase | Engine,
        schema: SchemaSource,
        *,
        key: str | None = None,
    ) -> None:
        self.engine = engine = engine_of(source)
        maker = _MAKERS.get(engine.dialect.name)
        if maker is None:
            raise UsageError(
                "tests with a real database need PostgreSQL, MariaDB or SQLite, and "
                f"this is {engine.dialect.name}"
            )
        described = schema_of(schema, engine.url)
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
        make: Callable[[], Maker] = partial(
            maker, engine.url, described, sent_to=self._sent_to, key=key, run=run
        )
        self.pool = WarmPool(make)

    def _sent_to(self, url: URL) -> AbstractContextManager[None]:
        return _sent_to(self.engine, url)

    @contextmanager
    def lend(self, *, keep: bool = False) -> Iterator[MadeDatabase]:
        """Send the engine to a new database, in the context of the block."""
        made = self.take()
        try:
            with _sent_to(self.engine, made.url):
                yield made
        finally:
            self.give_back(made, keep=keep)

    def take(self) -> MadeDatabase:
        return self.pool.take()

    def give_back(self, made: MadeDatabase, *, keep: bool = False) -> None:
        self.pool.give_back(made, keep=keep)

    def close(self) -> None:
        self.pool.close()


@contextmanager
def _sent_to(engine: Engine, url: URL) -> Iterator[None]:
    """Send what *engine* connects to in this context to *url*."""
    route = Route(engine, url)
    try:
        with routed(route):
            yield
    finally:
        route.close()
