"""The connections of sandboxes that are kept from one test to the next.

In pools of the test kit's own, which any number of sandboxes may use at once, and which
end when the engine is disposed of. SQLite's databases in memory belong to the
connections of one pool, so that one is used.
"""

from __future__ import annotations

import asyncio
import os
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, event

from .._concurrency.fork import renew_after_fork
from .._driver.sqlalchemy_internals import EngineOver, larger_pool, root_engine
from .portal import Portal

__all__ = ["dispose_of_all", "engine_for_sandboxes"]

_KEPT = 32  # connections of one engine, for as many tests at a time

_Loop = asyncio.AbstractEventLoop | None
_engines: WeakKeyDictionary[Any, dict[_Loop, Engine]] = WeakKeyDictionary()
"""By dialect, and by the event loop that the connections belong to."""
_lock = renew_after_fork(RLock())
_process = os.getpid()
_inherited: list[object] = []
"""Those of the parent process: kept, or the garbage collector would close them."""


def _engines_of_this_process() -> WeakKeyDictionary[Any, dict[_Loop, Engine]]:
    """The engines; none at first in the child of a fork. With the lock only."""
    global _process
    if _process != os.getpid():
        _inherited.extend(_engines.values())
        _engines.clear()
        _process = os.getpid()
    return _engines


def engine_for_sandboxes(engine: Engine, portal: Portal | None) -> Engine:
    """The engine with the connections of sandboxes to *engine*'s database."""
    if engine.dialect.name == "sqlite":
        return engine
    loop = None if portal is None else portal.loop
    with _lock:
        of_all = _engines_of_this_process()
        engines = of_all.get(engine.dialect)
        if engines is None:
            engines = of_all[engine.dialect] = {}
            event.listen(root_engine(engine), "engine_disposed", _dispose)
        for other in [each for each in engines if each is not None]:
            if other.is_closed():
                del engines[other]
        if loop not in engines:
            root = root_engine(engine)
            engines[loop] = EngineOver(root, larger_pool(root.pool, _KEPT))
        return engines[loop]


def _dispose(engine: Engine) -> None:
    """Close the idle connections of sandboxes, each in its event loop.

    An application may be shut down inside a sandbox, whose connection stays.
    """
    with _lock:
        engines = dict(_engines_of_this_process().get(engine.dialect, {}))
    for loop, source in engines.items():
        if loop is None or not loop.is_running():
            source.pool.dispose()
        else:
            Portal(loop, 10.0, is_own=True).call(source.pool.dispose)


def dispose_of_all() -> None:
    """Close the idle connections of all engines: no test follows."""
    with _lock:
        of_all = _engines_of_this_process().values()
        engines = [source for each in of_all for source in each.values()]
    for engine in engines:
        _dispose(engine)
