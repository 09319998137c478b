"""The databases of one process of tests: each worker of pytest-xdist has its own.

Their names are chosen before the application is imported, which may read its URL then.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import ArgumentError

from .._unit.database_base import DatabaseBase
from ..errors import UsageError
from .made import PREFIX, MadeDatabase, new_key
from .real import RealDatabases, engine_of
from .real_pools import Schemas, close_pools, pool_of
from .routes import Route, default_routes

__all__ = ["choose_database", "worker_databases"]

_NOT_SET = (
    "unitwork_database_env names {variable}, which is not set: set it to the URL of a "
    "database on the server of the tests. Its own tables are not used"
)


def choose_database(variable: str, environment: MutableMapping[str, str]) -> str:
    """Name a database of this process in *variable*; return the key of its name.

    It is on the server of the URL that is there, and made later. Raises `UsageError`
    without a URL there.
    """
    try:
        url = make_url(environment.get(variable, ""))
    except ArgumentError:
        raise UsageError(_NOT_SET.format(variable=variable)) from None
    key = new_key()
    if url.get_backend_name() != "sqlite":
        chosen = url.set(database=f"{PREFIX}{key}_0")
        environment[variable] = chosen.render_as_string(hide_password=False)
    return key


@contextmanager
def worker_databases(
    sources: Sequence[DatabaseBase | Engine], schemas: Schemas, key: str | None = None
) -> Iterator[list[MadeDatabase]]:
    """Send all that uses *sources* to databases of this process, while the block runs.

    With what `choose_database()` has returned as *key*, the first one is that database.
    """
    taken: list[tuple[RealDatabases, MadeDatabase]] = []
    routes: list[Route] = []
    try:
        for source in {engine_of(source): source for source in sources}.values():
            pool = pool_of(source, schemas, key=None if taken else key)
            made = pool.take()
            taken.append((pool, made))
            routes.append(Route(pool.engine, made.url))
        with default_routes(routes):
            yield [made for _, made in taken]
    finally:
        for route in routes:
            route.close()
        for pool, made in taken:
            pool.give_back(made)
        close_pools()
