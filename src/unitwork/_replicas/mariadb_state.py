"""Queries a replica of MariaDB before the transaction of a unit: may it serve that?

So the first read takes its snapshot after the answer, at each isolation level.

Sources: MariaDB, "MASTER_GTID_WAIT", "SHOW REPLICA STATUS", "read_only".
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._driver.gtids import Gtids, LogPosition, covers, read_gtids
from .._transaction.mariadb_position import (
    fetch_first_row,
    fetch_row,
    replace_if_dropped,
)
from .replica_state import STOPPED, ReplicaState, ReplicaVerdict, judge_replica

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from .replica import Replica

__all__ = ["fetch_state", "find_verdict"]

_POSITION = "CONCAT_WS(',', @@global.gtid_slave_pos, @@global.gtid_binlog_state)"
_QUESTION = f"SELECT @@global.read_only AS read_only, {_POSITION} AS position"
_REACHED = ", MASTER_GTID_WAIT('{}', {:.3f}) AS missed"
_STATUS = "SHOW ALL SLAVES STATUS"
_GALERA = "SHOW GLOBAL VARIABLES LIKE 'wsrep_on'"
_OFF = ("0", "OFF")


def find_verdict(
    replica: Replica,
    connection: Connection,
    needed: LogPosition | None,
    max_lag: float | None,
    until: float,
) -> ReplicaVerdict:
    """Whether *replica* may serve a unit that needs what is *needed*.

    The replica itself waits for that, until *until*. Raises the error of the driver.
    """
    is_due = replica.is_due
    if needed is None and not is_due:
        replace_if_dropped(connection)
        return judge_replica(None, needed, max_lag)
    gtids = needed if isinstance(needed, Gtids) else None
    state = fetch_state(connection, gtids, until, with_lag=is_due)
    if is_due:
        state = replica.record(state)
    return judge_replica(state, needed, max_lag)


def fetch_state(
    connection: Connection,
    needed: Gtids | None = None,
    until: float = 0.0,
    *,
    with_lag: bool = True,
) -> ReplicaState | None:
    """What the replica says of itself; `None` if it can't be asked for that.

    Which servers its transactions come from it knows of the last one, and, if it logs
    what it replays (`log_slave_updates`), of all.
    """
    query = _QUESTION
    if needed is not None:
        left = max(until - time.monotonic(), 0.0)
        query += _REACHED.format(needed.position, left)
    row = fetch_first_row(connection, query)
    if not row:
        return None
    position = _read_position(row)
    if needed is not None and row["missed"] == 0 and not covers(position, needed):
        # It has waited; but what has come may be of another server, with its number.
        now = fetch_row(connection, f"SELECT {_POSITION} AS position")
        position = _read_position(now or row)
    is_read_only = str(row["read_only"]).upper() not in _OFF
    if not is_read_only and _is_galera(connection):  # its nodes are all primaries
        return None
    lag = _fetch_lag(connection) if with_lag and is_read_only else None
    return ReplicaState(is_read_only, position, lag, sees_more=True, has_waited=True)


def _read_position(row: Mapping[str, Any]) -> Gtids | None:
    return read_gtids(str(row["position"]).strip(","))


def _is_galera(connection: Connection) -> bool:
    row = fetch_row(connection, _GALERA) or {}
    return str(row.get("Value", "OFF")).upper() not in _OFF


def _fetch_lag(connection: Connection) -> float | None:
    """The seconds that it lags behind, by what it has received; `None`: can't say.

    That needs a privilege. `STOPPED` if it receives or replays nothing.
    """
    row = fetch_row(connection, _STATUS)
    if row is None:
        return None
    threads = (row.get("Slave_IO_Running"), row.get("Slave_SQL_Running"))
    seconds = row.get("Seconds_Behind_Master")
    if threads != ("Yes", "Yes") or seconds is None:
        return STOPPED
    return float(seconds)
