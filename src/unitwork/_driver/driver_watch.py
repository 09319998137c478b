"""Watches what a driver's connection sends, and what ends a transaction there.

Drivers report the present state of a connection. Whether its transaction is still the
same one has to be observed: MySQL's begins at any statement, and so does psycopg's.
asyncpg counts its messages itself.
"""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakMethod, WeakSet, ref

from .driver_connection import COUNTER, MessageCounter, abort, in_transaction, is_active
from .mysql_watch import watch_mysql
from .sqlite_connection import CURSORS

__all__ = ["watch"]

_Ended = WeakMethod[Callable[[], None]]
_Failed = WeakMethod[Callable[[Exception], None]]
_Limit = WeakMethod[Callable[[], float]]


def watch(driver: Any, ended: _Ended, failed: _Failed, limit: _Limit) -> None:
    """Count the messages of *driver*, and call *ended* whenever a transaction ends.

    It is called for SQLAlchemy's own COMMIT and ROLLBACK as well, and where psycopg
    begins a transaction by itself: another one may have ended before. Does nothing for
    sqlite3, whose connections can't be watched at a reasonable cost. *failed* is called
    with the error of one of several results of MySQL that is not the first; *limit*
    returns the seconds for which psycopg may wait for the end of a statement that is
    cancelled.
    """
    if hasattr(driver, "_get_tx_start_command"):
        _watch_psycopg(driver, ended)
        if inspect.iscoroutinefunction(getattr(driver, "cancel_safe", None)):
            _limit_cancellation(driver, limit)
    elif hasattr(driver, "_read_query_result"):
        watch_mysql(driver, partial(_call, ended), partial(_call, failed))
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
    # That of an earlier watch: what others have seen of it goes on.
    counter: MessageCounter = getattr(driver, COUNTER, None) or MessageCounter()
    driver._get_tx_start_command = get_command
    driver.wait = wait
    setattr(driver, COUNTER, counter)


def _limit_cancellation(driver: Any, limit: _Limit) -> None:
    """Abort the connection if the server does not cancel its statement in time.

    psycopg gives it 5 seconds, and waits for 5 more.
    """
    weakly = ref(driver)
    original = type(driver).cancel_safe

    async def cancel_safe(*, timeout: float = 30.0) -> None:  # noqa: ASYNC109  # psycopg's
        driver, patience = weakly(), limit()
        if driver is None or patience is None:
            return
        counter: MessageCounter = getattr(driver, COUNTER)
        statement, seconds = counter.queries_count, patience()

        def give_up() -> None:
            driver = weakly()
            if is_active(driver) and counter.queries_count == statement:
                abort(driver)

        asyncio.get_running_loop().call_later(seconds, give_up)
        await original(driver, timeout=min(timeout, seconds))

    driver.cancel_safe = cancel_safe


def _watch_aiosqlite(driver: Any, ended: _Ended) -> None:
    """Look at the state after each call; a script commits first, and may begin.

    Not after a cancellation: the thread may go on with the call.
    """
    weakly = ref(driver)
    cursors: WeakSet[sqlite3.Cursor] = WeakSet()
    setattr(driver, CURSORS, cursors)
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
        if isinstance(result, sqlite3.Cursor):
            cursors.add(result)
        answered(call)
        return result

    driver._execute = execute


def _call(weakly: WeakMethod[Callable[..., None]], *args: object) -> None:
    if (method := weakly()) is not None:
        method(*args)
