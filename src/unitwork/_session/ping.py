"""One round trip to a database, outside any unit: is it there?

Each call waits for its time limit at most. What it has begun may take longer than that,
as no driver can be stopped while it connects; it ends by itself, and nothing waits.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from threading import Thread

from sqlalchemy import Connection, select

from .._concurrency.unread_error import retrieve_exception
from .._concurrency.worker import on_event_loop
from .._engine.address import address_of
from .._engine.create import capacity
from ..errors import DatabaseUnavailableError, UsageError
from .database_core import DatabaseCore

__all__ = ["aping", "ping"]


def ping(database: DatabaseCore, timeout: float) -> None:
    """Make one round trip in a thread of its own.

    One for all calls at the same time: those of a database that does not answer would
    add up. Raises `DatabaseUnavailableError`.
    """
    _check_limit(timeout)
    if on_event_loop():
        raise UsageError(
            "Database.ping() would block the event loop; call it in a `def` endpoint, "
            "or write `await anyio.to_thread.run_sync(db.ping)`"
        )
    answer = database.ping_under_way
    if answer is None or answer.done():
        database.ping_under_way = answer = Future()
        complete = partial(copy_context().run, _complete, answer, database)
        Thread(target=complete, daemon=True).start()
    try:
        answer.result(timeout)
    except TimeoutError as error:
        if answer.done():  # the driver's own
            raise _unavailable(database, error) from error
        raise _no_answer(database, timeout) from None
    except Exception as error:
        raise _unavailable(database, error) from error


async def aping(
    database: DatabaseCore,
    timeout: float,  # noqa: ASYNC109  # the driver's clean-up may take longer
) -> None:
    """Make one round trip. Raises `DatabaseUnavailableError`."""
    _check_limit(timeout)
    # In a context of its own: a transport keeps the one in which it was created.
    context = Context() if database.redirect is None else copy_context()
    task = asyncio.create_task(_alook(database), context=context)
    try:
        await asyncio.wait((task,), timeout=timeout)
    finally:
        task.add_done_callback(retrieve_exception)
        if not task.done():
            task.cancel()
    if not task.done():
        raise _no_answer(database, timeout)
    if (error := task.exception()) is not None:
        raise _unavailable(database, error) from error


def _complete(answer: Future[None], database: DatabaseCore) -> None:
    try:
        _look(database)
    except BaseException as error:
        answer.set_exception(error)
    else:
        answer.set_result(None)


def _look(database: DatabaseCore) -> None:
    factory = database.factory
    admitted = factory.gate is not None and factory.gate.acquire_in_thread()
    try:
        with factory.engine.connect() as connection:
            _round_trip(connection)
    finally:
        if admitted and factory.gate is not None:
            factory.gate.release()


async def _alook(database: DatabaseCore) -> None:
    gate = database.factory.gate
    if gate is not None:
        await gate.acquire()
    try:
        async with database.async_engine.connect() as connection:
            await connection.run_sync(_round_trip)
    finally:
        if gate is not None:
            gate.release()


def _round_trip(connection: Connection) -> None:
    """Make one, and no more: without BEGIN."""
    connection.execution_options(isolation_level="AUTOCOMMIT").scalar(select(1))


def _unavailable(
    database: DatabaseCore, error: BaseException
) -> DatabaseUnavailableError:
    cause = getattr(error, "orig", None) or error  # without SQLAlchemy's link
    reason = " ".join(str(cause).split()) or type(error).__name__
    return DatabaseUnavailableError(f"{_named(database)} can't be reached: {reason}")


def _no_answer(database: DatabaseCore, timeout: float) -> DatabaseUnavailableError:
    engine, reason = database.known_engine, ""
    size = None if engine is None else capacity(engine)
    if size is not None and database.pool_status().checked_out >= size:
        reason = f": all {size} connections of its pool are in use"
    return DatabaseUnavailableError(
        f"{_named(database)} has not answered within {timeout:g} seconds{reason}"
    )


def _named(database: DatabaseCore) -> str:
    engine = database.known_engine
    where = "" if engine is None else f" ({address_of(engine.url)})"
    return f"database {database.name!r}{where}"


def _check_limit(timeout: float) -> None:
    if not isinstance(timeout, int | float) or not timeout > 0:
        raise UsageError(f"timeout is {timeout!r}; give seconds, more than 0")
