"""Watches what is sent through a driver's own connection, past SQLAlchemy.

Each call of it costs a little, so a connection is watched once it has been requested.
The private attributes of the drivers that this needs are used here only. Nothing of
sqlite3 can be watched, and nothing that asyncpg has prepared.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from inspect import getgeneratorlocals, isgenerator
from typing import Any
from weakref import WeakKeyDictionary, WeakMethod, ref

__all__ = ["SAVEPOINT_OF_ASYNCPG", "watch_calls"]

SAVEPOINT_OF_ASYNCPG = "__asyncpg_savepoint"
"""How the names of those begin that asyncpg never uses again after it rolls back."""

_Sent = WeakMethod[Callable[[str], None]]


def watch_calls(driver: Any, sent: _Sent) -> bool:
    """Call *sent* with each statement that *driver* is about to send.

    Returns whether these are SQLAlchemy's as well.
    """
    if hasattr(driver, "_protocol"):
        _watch_asyncpg(driver, sent)
        return False
    if hasattr(driver, "_exec_command"):
        _watch_psycopg(driver, sent)
    elif hasattr(driver, "_read_query_result"):
        driver.query = _noting(sent, partial(_call_method, ref(driver), "query"))
    elif hasattr(driver, "executescript") and hasattr(driver, "_execute"):
        driver._execute = _noting(sent, driver._execute, position=1)
    return True


def _noting(
    sent: _Sent, call: Callable[..., Any], position: int = 0
) -> Callable[..., Any]:
    """What notes the argument at *position*, and then calls *call*."""

    def noting(*args: Any, **options: Any) -> Any:
        _note(sent, next(iter(args[position:] or options.values()), None))
        return call(*args, **options)

    return noting


def _call_method(weakly: ref[Any], name: str, *args: Any, **options: Any) -> Any:
    driver = weakly()
    return getattr(type(driver), name)(driver, *args, **options)


def _watch_psycopg(driver: Any, sent: _Sent) -> None:
    """Its own commands, and the statements of its cursors, which are generators."""
    execute = partial(_call_method, ref(driver), "_exec_command")
    driver._exec_command = _noting(sent, execute)
    original = driver.wait

    def wait(generator: Any, *args: Any, **options: Any) -> Any:
        if isgenerator(generator):
            found = getgeneratorlocals(generator)
            _note(sent, found.get("query", found.get("statement")))
        return original(generator, *args, **options)

    driver.wait = wait


_SENDING = ("execute", "_execute", "_executemany", "_copy_in", "copy_records_to_table")
_of_asyncpg: WeakKeyDictionary[Any, _Sent] = WeakKeyDictionary()


class _Watched:
    __slots__ = ()


def _watch_asyncpg(driver: Any, sent: _Sent) -> None:
    """By its class, as asyncpg's connections have no attributes of their own."""
    _of_asyncpg[driver] = sent
    if not isinstance(driver, _Watched):
        kind: Any = type(driver)
        driver.__class__ = _watched(kind)


@cache
def _watched(kind: Any) -> type:
    same = ("__doc__", "__module__", "__qualname__")
    members = {name: getattr(kind, name) for name in same}
    members |= {name: _noting_method(kind, name) for name in _SENDING}
    made: type = type(kind)(
        kind.__name__, (kind, _Watched), {**members, "__slots__": ()}
    )
    return made


def _noting_method(kind: Any, name: str) -> Callable[..., Any]:
    original = getattr(kind, name)

    def call(driver: Any, *args: Any, **options: Any) -> Any:
        _note(_of_asyncpg[driver], next(iter(args or options.values()), None))
        return original(driver, *args, **options)

    return call


def _note(sent: _Sent, query: Any) -> None:
    method = sent()
    if method is None:
        return
    if isinstance(query, bytes):
        query = query.decode(errors="replace")
    elif hasattr(query, "as_string"):  # of `psycopg.sql`
        query = query.as_string()
    if isinstance(query, str):
        method(query)
