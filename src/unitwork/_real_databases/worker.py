"""The databases of one process of tests: each worker of pytest-xdist has its own.

Their names are chosen before the application is imported, which may read its URL then.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from contextlib import ExitStack

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import ArgumentError

from .._driver.sqlalchemy_internals import root_engine
from .._unit.database_base import DatabaseBase, core_of
from ..errors import UsageError
from .pools import Schemas, close_pools, real_databases_for
from .provisioning import PREFIX, new_key
from .real_databases import LentDatabase, engine_of
from .routes import Route, default_route

__all__ = ["WorkerDatabases", "choose_database"]

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


class WorkerDatabases:
    """Sends all that uses *sources* to databases of this process, by `with`.

    With what `choose_database()` has returned as *key*, the first one is that database.
    """

    def __init__(
        self,
        sources: Sequence[DatabaseBase | Engine],
        schemas: Schemas,
        key: str | None = None,
    ) -> None:
        self._sources = sources
        self._schemas = schemas
        self._key = key
        self._lent: list[LentDatabase] = []
        self._stack = ExitStack()
        self._is_kept = False

    def __enter__(self) -> WorkerDatabases:
        with ExitStack() as stack:
            stack.callback(close_pools)
            stack.callback(self._give_back)
            for source in {engine_of(each): each for each in self._sources}.values():
                self._take(source, stack)
            self._stack = stack.pop_all()
        return self

    def _take(self, source: DatabaseBase | Engine, stack: ExitStack) -> None:
        key = None if self._lent else self._key
        pool = real_databases_for(source, self._schemas, key=key)
        lent = pool.take()
        self._lent.append(lent)
        for engine in {pool.engine, *_replicas_of(source)}:
            route = Route(engine, lent.url)
            stack.callback(route.close)
            stack.enter_context(default_route(route))

    def has_all(self, sources: Sequence[DatabaseBase | Engine]) -> bool:
        """Return whether each of *sources* has a database of this process instead."""
        own = {engine_of(each) for each in self._sources}
        return own.issuperset(map(engine_of, sources))

    def keep(self) -> list[str]:
        """Keep the databases at the end; return their URLs, without passwords."""
        self._is_kept = True
        return [lent.address for lent in self._lent]

    def _give_back(self) -> None:
        for lent in self._lent:
            lent.give_back(keep=self._is_kept)

    def __exit__(self, *exception: object) -> None:
        self._stack.close()


def _replicas_of(source: DatabaseBase | Engine) -> list[Engine]:
    """The engines of its replicas, which have the application's own database."""
    if not isinstance(source, DatabaseBase):
        return []
    return [root_engine(engine) for engine in core_of(source).engines_to_dispose[1:]]
