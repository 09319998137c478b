"""Opens connections to a replica, and queries whether it may serve a unit.

On PostgreSQL the query goes along with BEGIN; drivers that can't send it so query
nothing. On MariaDB it precedes the transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.exc import TimeoutError as NoFreeConnectionError
from sqlalchemy.util import await_only

from .._driver.gtids import LogPosition
from .._driver.postgresql_begin import begins
from .._driver.postgresql_messages import fetch_value
from .._driver.sqlalchemy_internals import is_autocommit
from .._transaction.mariadb_position import is_mariadb
from .._transaction.unit_begin import begin_to_read
from ..errors import UnitworkError
from .mariadb_state import fetch_state, find_verdict
from .replica import Replica
from .replica_state import (
    POSITION_QUERY,
    STATE_QUERY,
    ReplicaState,
    ReplicaVerdict,
    judge_replica,
    read_state,
)

__all__ = ["check", "connect_to"]

_FIRST_POLL, _LONGEST_POLL = 0.001, 0.01  # seconds


def connect_to(
    replica: Replica,
    engine: Engine,
    needed: LogPosition | None,
    *,
    max_lag: float | None,
    until: float,
    setting: str = "",
) -> Connection | None:
    """Connect to *replica* by *engine*, and begin; `None` if it can't serve the unit.

    *setting* is a statement that goes along with BEGIN.
    Waits *until* then, by `time.monotonic()`, for it to replay what is *needed*.
    Raises what is no fault of the replica, such as a pool without a free connection.
    """
    try:
        connection = engine.connect()
    except (UnitworkError, NoFreeConnectionError):
        raise
    except Exception as error:
        replica.raised(error)
        return None
    try:
        if is_mariadb(connection.dialect):
            verdict = find_verdict(replica, connection, needed, max_lag, until)
        else:
            verdict = _begin(replica, connection, needed, max_lag, setting)
        if needed is not None and verdict.may_become_ready:
            verdict = _wait(replica, connection, needed, max_lag, until)
    except Exception as error:
        _discard(connection)
        replica.raised(error)
        return None
    except BaseException:
        _discard(connection)
        raise
    if verdict.ready:
        return connection
    if not verdict.usable:
        replica.failed(verdict.reason)
    connection.close()
    return None


def _begin(
    replica: Replica,
    connection: Connection,
    needed: LogPosition | None,
    max_lag: float | None,
    setting: str,
) -> ReplicaVerdict:
    can_be_asked = begins(connection) and not is_autocommit(connection)
    if not can_be_asked or (needed is None and not replica.is_due):
        begin_to_read(connection, "", setting)
        return judge_replica(None, needed, max_lag)

    def send(query: str) -> str | None:
        return begin_to_read(connection, query, setting)

    return judge_replica(
        _query_state(replica, connection, needed, send), needed, max_lag
    )


def _query_state(
    replica: Replica,
    connection: Connection,
    needed: LogPosition | None,
    send: Callable[[str], str | None],
) -> ReplicaState | None:
    """Ask by *send* for what is not known; by another message, if it was restarted."""
    if not replica.is_due and needed is not None and replica.may_reach(needed):
        state = read_state(send(POSITION_QUERY), replica.run)
        if state is None or state.run is not None:
            return state
        send = partial(_fetch, connection)
    return replica.record(read_state(send(STATE_QUERY)))


def _fetch(connection: Connection, query: str) -> str | None:
    driver: Any = connection.connection.driver_connection
    return fetch_value(driver, query)


def _wait(
    replica: Replica,
    connection: Connection,
    needed: LogPosition,
    max_lag: float | None,
    until: float,
) -> ReplicaVerdict:
    """Ask again and again until the replica is ready, or *until* then."""
    verdict, seconds = ReplicaVerdict(True, False), _FIRST_POLL
    while (left := until - time.monotonic()) > 0:
        _sleep(connection, min(seconds, left))
        seconds = min(seconds * 2, _LONGEST_POLL)
        state = _query_state(replica, connection, needed, partial(_fetch, connection))
        verdict = judge_replica(state, needed, max_lag)
        if not verdict.may_become_ready:
            break
    return verdict


def _sleep(connection: Connection, seconds: float) -> None:
    if connection.dialect.is_async:
        await_only(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


def check(replica: Replica, max_lag: float | None) -> None:
    """Find out whether a *replica* that is not used is well again."""
    try:
        if replica.is_unreachable:
            replica.engine.dispose()  # its idle connections are as dead as it was
        with replica.engine.connect() as connection:
            state = replica.record(_fetch_state(connection))
        verdict = judge_replica(state, None, max_lag)
        if verdict.usable:
            replica.recovered()
        else:
            replica.failed(verdict.reason)
    except Exception as error:
        replica.raised(error)
    finally:
        replica.check_ended()


def _fetch_state(connection: Connection) -> ReplicaState | None:
    """What the replica says of itself; `None` if it can't be asked for that."""
    try:
        if begins(connection):
            return read_state(_fetch(connection, STATE_QUERY))
        if is_mariadb(connection.dialect):
            return fetch_state(connection)
        connection.exec_driver_sql("SELECT 1")
    except BaseException:  # lost, past SQLAlchemy: the pool would fail to reset it
        with suppress(InvalidRequestError):
            connection.invalidate()
        raise
    return None


def _discard(connection: Connection) -> None:
    with suppress(InvalidRequestError):
        connection.invalidate()
    connection.close()
