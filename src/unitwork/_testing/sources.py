"""Where the connections of sandboxes come from, and go to at their end.

From a pool of the kit's own, which any number of sandboxes may use at once, and which
keeps connections from one test to the next; it ends when the engine is disposed of.
SQLite's databases in memory belong to the connections of one pool, so that one is used.
"""

from __future__ import annotations

import asyncio
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, event

from .._concurrency.fork import renew_after_fork
from .._engine.sqlalchemy_internals import EngineOver, larger_pool, root_engine
from .home import Home

__all__ = ["dispose_of_all", "source_of"]

_KEPT = 32  # connections of one engine, for as many tests at a time

_Loop = asyncio.AbstractEventLoop | None
_sources: WeakKeyDictionary[Any, dict[_Loop, Engine]] = WeakKeyDictionary()
"""By dialect, and by the event loop that the connections belong to."""
_lock = renew_after_fork(RLock())


def source_of(engine: Engine, home: Home | None) -> Engine:
    """The engine from which a sandbox gets its connection to *engine*'s database."""
    if engine.dialect.name == "sqlite":
        return engine
    loop = None if home is None else home.loop
    with _lock:
        sources = _sources.get(engine.dialect)
        if sources is None:
            sources = _sources[engine.dialect] = {}
            event.listen(root_engine(engine), "engine_disposed", _dispose)
        for other in [each for each in sources if each is not None]:
            if other.is_closed():
                del sources[other]
        if loop not in sources:
            root = root_engine(engine)
            sources[loop] = EngineOver(root, larger_pool(root.pool, _KEPT))
        return sources[loop]


def _dispose(engine: Engine) -> None:
    """Close the idle connections of sandboxes, each in its event loop.

    An application may be shut down inside a sandbox, whose connection stays.
    """
    with _lock:
        sources = dict(_sources.get(engine.dialect, {}))
    for loop, source in sources.items():
        if loop is None or not loop.is_running():
            source.pool.dispose()
        else:
            Home(loop, 10.0, is_ours=True).call(source.pool.dispose)


def dispose_of_all() -> None:
    """Close the idle connections of all engines: no test follows."""
    with _lock:
        engines = [source for each in _sources.values() for source in each.values()]
    for engine in engines:
        _dispose(engine)
