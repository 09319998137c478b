"""Watches what a connection of MySQL's drivers sends, and what is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from .driver_connection import COUNTER, MessageCounter, in_transaction
from .mysql_status import WARNINGS

__all__ = ["watch_mysql"]


def watch_mysql(
    driver: Any, ended: Callable[[], None], failed: Callable[[Exception], None]
) -> None:
    """Count the messages of *driver*, call *ended* and *failed* as `watch()` says."""
    weakly = ref(driver)
    # That of an earlier watch: what others have seen of it goes on.
    counter: MessageCounter = getattr(driver, COUNTER, None) or MessageCounter()
    setattr(driver, COUNTER, counter)

    def answered(_result: object) -> None:
        if not in_transaction(weakly()):
            ended()

    def begun(_result: object) -> None:
        ended()  # BEGIN commits what was open before

    for name in ("_read_query_result", "commit", "rollback"):
        _watch_method(driver, name, answered, counter=counter)
    _watch_method(driver, "begin", begun, counter=counter)
    # SQLAlchemy has seen no error of a statement whose first result was rows; and it
    # drops those that the closing of a cursor raises, which reads the other results.
    _watch_method(driver, "next_result", _ignore, failed)

    def keep_warnings(packet: Any) -> None:
        setattr(weakly(), WARNINGS, packet.warning_count)

    _watch_method(driver, "_read_ok_packet", keep_warnings)


def _ignore(_: object) -> None:
    pass


def _watch_method(
    driver: Any,
    name: str,
    answered: Callable[[Any], None],
    failed: Callable[[Exception], None] = _ignore,
    counter: MessageCounter | None = None,
) -> None:
    """Call *answered* with each result of a method, or *failed* with its error.

    *counter* counts the calls, if they send messages.
    """
    weakly, original = ref(driver), getattr(type(driver), name)
    calls = counter or MessageCounter()

    def call(*args: Any, **options: Any) -> Any:
        calls.queries_count += 1
        try:
            result = original(weakly(), *args, **options)
        except Exception as error:
            failed(error)
            raise
        answered(result)
        return result

    async def call_async(*args: Any, **options: Any) -> Any:
        calls.queries_count += 1
        try:
            result = await original(weakly(), *args, **options)
        except Exception as error:
            failed(error)
            raise
        answered(result)
        return result

    is_async = hasattr(type(driver), "ensure_closed")
    setattr(driver, name, call_async if is_async else call)
