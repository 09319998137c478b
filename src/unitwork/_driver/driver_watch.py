"""Watches what a driver's connection sends, and what ends a transaction there.

Drivers report the present state of a connection. Whether its transaction is still the
same one has to be observed: MySQL's begins at any statement, and so does psycopg's.
asyncpg counts its messages itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakMethod, ref

from .driver_connection import COUNTER, MessageCounter, in_transaction

__all__ = ["watch"]

_Ended = WeakMethod[Callable[[], None]]


def watch(driver: Any, ended: _Ended) -> None:
    """Count the messages of *driver*, and call *ended* whenever a transaction ends.

    It is called for SQLAlchemy's own COMMIT and ROLLBACK as well, and where psycopg
    begins a transaction by itself: another one may have ended before. Does nothing for
    sqlite3, whose connections can't be watched at a reasonable cost.
    """
    if hasattr(driver, "_get_tx_start_command"):
        _watch_psycopg(driver, ended)
    elif hasattr(driver, "_read_query_result"):
        _watch_mysql(driver, ended)
    elif hasattr(driver, "executescript") and hasattr(driver, "_execute"):
        _watch_aiosqlite(driver, ended)


def _watch_psycopg(driver: Any, ended: _Ended) -> None:
    weakly = ref(driver)

    def get_command() -> bytes:
        _call(ended)
        command: bytes = type(driver)._get_tx_start_command(weakly())
        return command

    def wait(*args: Any, **options: Any) -> Any:
        counter.queries_count += 1
        return original(weakly(), *args, **options)

    original = type(driver).wait
    counter = MessageCounter()
    driver._get_tx_start_command = get_command
    driver.wait = wait
    setattr(driver, COUNTER, counter)


def _watch_mysql(driver: Any, ended: _Ended) -> None:
    """Look at the status in each answer; `begin()` commits what was open before."""
    weakly = ref(driver)
    counter = MessageCounter()
    setattr(driver, COUNTER, counter)
    is_async = hasattr(type(driver), "ensure_closed")

    def watched(name: str) -> Callable[..., Any]:
        original = getattr(type(driver), name)

        def answered() -> None:
            if name == "begin" or not in_transaction(weakly()):
                _call(ended)

        def call(*args: Any, **options: Any) -> Any:
            counter.queries_count += 1
            result = original(weakly(), *args, **options)
            answered()
            return result

        async def call_async(*args: Any, **options: Any) -> Any:
            counter.queries_count += 1
            result = await original(weakly(), *args, **options)
            answered()
            return result

        return call_async if is_async else call

    for name in ("_read_query_result", "begin", "commit", "rollback"):
        setattr(driver, name, watched(name))


def _watch_aiosqlite(driver: Any, ended: _Ended) -> None:
    """Look at the state after each call; a script commits first, and may begin.

    Not after a cancellation: the thread may go on with the call.
    """
    weakly = ref(driver)
    original = type(driver)._execute

    def answered(call: Callable[..., Any]) -> None:
        is_script = getattr(call, "__name__", "") == "executescript"
        if is_script or not in_transaction(weakly()):
            _call(ended)

    async def execute(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            result = await original(weakly(), call, *args, **options)
        except Exception:
            answered(call)
            raise
        answered(call)
        return result

    driver._execute = execute


def _call(ended: _Ended) -> None:
    if (method := ended()) is not None:
        method()
