"""Sends the connections of an engine to the database of a test, by context.

An engine keeps its pool, options and listeners. Where a context has a route for it,
`Engine.connect()` takes a connection of the route's pool, which has been opened to the
database of the route. So all that uses the engine follows: units of work, sessions of
its own, `ping()`, `create_all()`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import Thread
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sqlalchemy import Engine, event
from sqlalchemy.engine import URL

from .._driver.driver_connection import abort
from .._driver.sqlalchemy_internals import root_engine
from .._engine.event_loops import hang_up
from ..errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, Pool

__all__ = [
    "Route",
    "Routes",
    "connecting_by_itself",
    "default_route",
    "follow_routes_of",
    "refusing_connections",
    "routed",
]

_LOOP = "unitwork_loop"
_ROUTED = ("connect", "checkedout", "checkedin", "overflow", "status")
"""The methods of a pool that the pool of a route answers."""
_OWN_CREATOR = (
    "the engine connects by a function of its own (`creator=`), so it can't be sent to "
    "the database of a test; let it connect by its URL"
)


class Route:
    """The database that an engine connects to during a test, and its pool."""

    def __init__(self, engine: Engine, url: URL) -> None:
        self.engine = root_engine(engine)
        self.url = url
        _follow(self.engine)
        self.pool = self.engine.pool.recreate()
        self.opened: WeakSet[ConnectionPoolEntry] = WeakSet()
        self.used = False

    def redirect(self, dialect: Any, cargs: list[Any], cparams: dict[str, Any]) -> None:
        """Change the arguments of a connection where the two URLs differ."""
        own, own_params = dialect.create_connect_args(self.engine.url)
        other, params = dialect.create_connect_args(self.url)
        if list(own) != list(other):
            cargs[:] = other
        for name in own_params.keys() - params.keys():
            cparams.pop(name, None)
        for name, value in params.items():
            if name not in own_params or own_params[name] != value:
                cparams[name] = value
        self.used = True

    def dispose(self) -> None:
        """Close the idle connections: the application disposes of its engine."""
        pool, self.pool = self.pool, self.engine.pool.recreate()
        pool.dispose()

    def close(self) -> None:
        """Close all connections, whatever they are doing, each in its event loop."""
        if not self.engine.dialect.is_async:
            self.pool.dispose()
        for record in list(self.opened):
            connection = record.dbapi_connection
            if connection is not None:
                _end(self.engine.dialect, record)


Routes = Mapping[Engine, Route]
_routes: ContextVar[Routes | None] = ContextVar("unitwork_routes", default=None)
_following: WeakSet[Engine] = WeakSet()
_defaults: dict[Engine, Route] = {}
_finders: list[Callable[[Engine], Route | None]] = []


_refusals: dict[Engine, list[Callable[[], None]]] = {}
_by_itself: ContextVar[bool] = ContextVar("unitwork_by_itself", default=False)


@contextmanager
def refusing_connections(engine: Engine, refuse: Callable[[], None]) -> Iterator[None]:
    """Call *refuse*, which may raise, whenever *engine* is to give a connection."""
    root = root_engine(engine)
    _follow(root)
    _refusals.setdefault(root, []).append(refuse)
    try:
        yield
    finally:
        _refusals[root].remove(refuse)


@contextmanager
def connecting_by_itself() -> Iterator[None]:
    """Let the test kit take a connection of an engine: it is not refused."""
    token = _by_itself.set(True)
    try:
        yield
    finally:
        _by_itself.reset(token)


@contextmanager
def routed(*routes: Route) -> Iterator[None]:
    """Let the engines follow the *routes* in this context, its tasks and threads."""
    token = _routes.set({route.engine: route for route in routes})
    try:
        yield
    finally:
        _routes.reset(token)


def follow_routes_of(route_of: Callable[[Engine], Route | None]) -> None:
    """Let *route_of* find the route where the context has none by `routed()`."""
    _finders.append(route_of)


def _route_of(engine: Engine) -> Route | None:
    routes = _routes.get()
    if routes is not None and engine in routes:
        return routes[engine]
    for find in _finders:
        if (found := find(engine)) is not None:
            return found
    return _defaults.get(engine)


@contextmanager
def default_route(route: Route) -> Iterator[None]:
    """Let its engine follow *route* wherever there is no other one."""
    _defaults[route.engine] = route
    try:
        yield
    finally:
        del _defaults[route.engine]


def _follow(engine: Engine) -> None:
    """Let *engine* follow routes from now on."""
    if engine not in _following:
        _following.add(engine)
        event.listen(engine, "do_connect", _redirect(engine))
        event.listen(engine, "connect", _opened(engine))
        event.listen(engine, "engine_disposed", _watch_pool)
        _watch_pool(engine)


def _redirect(engine: Engine) -> Any:
    def do_connect(dialect: Any, record: object, cargs: Any, cparams: Any) -> None:
        route = _route_of(engine)
        if route is not None:
            route.redirect(dialect, cargs, cparams)

    return do_connect


def _opened(engine: Engine) -> Any:
    def connect(dbapi_connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        route = _route_of(engine)
        if route is None:
            return
        if not route.used:
            dbapi_connection.close()
            raise UsageError(_OWN_CREATOR)
        route.opened.add(record)
        with suppress(RuntimeError):  # no event loop
            record.info[_LOOP] = asyncio.get_running_loop()

    return connect


def _watch_pool(engine: Engine) -> None:
    """Let the pool of *engine* follow routes; `dispose()` has given it a new one."""
    pool: Pool = engine.pool
    for name in _ROUTED:
        if (own := getattr(pool, name, None)) is not None:
            setattr(pool, name, _by_route(engine, name, own))
    own_dispose = pool.dispose

    def dispose() -> None:
        with suppress(UsageError):  # its test is over: nothing is left to close
            route = _route_of(engine)
            if route is not None:
                route.dispose()
        own_dispose()

    setattr(pool, "dispose", dispose)  # noqa: B010  # of this object alone


def _by_route(engine: Engine, name: str, own: Any) -> Any:
    def method(*args: Any) -> Any:
        route = _route_of(engine)
        if route is not None:
            return getattr(route.pool, name)(*args)
        if name == "connect" and not _by_itself.get():
            for refuse in _refusals.get(engine, ()):
                refuse()
        return own(*args)

    return method


def _end(dialect: Any, record: ConnectionPoolEntry) -> None:
    """Close a connection that may be in use, or another event loop's."""
    loop: asyncio.AbstractEventLoop | None = record.info.get(_LOOP)
    driver_connection: Any = record.driver_connection
    dbapi_connection: Any = record.dbapi_connection
    record.dbapi_connection = None  # type: ignore[misc]  # it is, in every record

    def end() -> None:
        with suppress(Exception):  # closed already: each driver raises another
            if dialect.has_terminate:
                dialect.do_terminate(dbapi_connection)
            elif (libpq := getattr(driver_connection, "pgconn", None)) is not None:
                libpq.finish()  # psycopg
            else:
                abort(driver_connection)

    if dialect.name == "sqlite":
        # In a thread without an event loop: aiosqlite would report to that of this one.
        thread = Thread(target=end, name="unitwork-close")
        thread.start()
        thread.join()
    elif loop is None:
        end()
    elif loop.is_closed():
        hang_up(driver_connection)
        end()
    else:
        with suppress(RuntimeError):  # closed meanwhile
            loop.call_soon_threadsafe(end)
