"""Verifies COMMITs of PostgreSQL after a failover, by the position in its log.

A standby that was promoted has replayed the log up to some position, and only ids that
it had not seen there are assigned again. So it is enough to know a position at which
the transaction had written already.

Sources: PostgreSQL, "Recovery Information Functions" and "Timelines".
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from ..errors import CommitUnknownError
from .commit_status import Installation, committed_here, fetch_row, status_since

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["LogPositionVerifier"]

_INSTALLATION = """
system_identifier, stats_reset, CASE WHEN NOT pg_is_in_recovery()
THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END
"""
_MARK = f"""
SELECT {_INSTALLATION}, txid_current_if_assigned(), CASE WHEN NOT pg_is_in_recovery()
THEN CAST(pg_current_wal_insert_lsn() AS text) END
FROM pg_control_system(), pg_stat_bgwriter
"""
_PRESENT = f"""
SELECT {_INSTALLATION},
CAST(extract(epoch FROM clock_timestamp() - stats_reset) AS double precision)
FROM pg_control_system(), pg_stat_bgwriter
"""
_REPLAYED = "SELECT pg_last_wal_replay_lsn() >= CAST(:position AS pg_lsn)"
_MARGIN = 1.0
"""In seconds, between the clocks of this process and the server."""
_UNKNOWABLE = (
    "the server has crashed since, or has failed over more than once, and may have "
    "assigned the id of the transaction again"
)


class LogPositionVerifier:
    """Verifies COMMITs of PostgreSQL also after a failover: `verify_commit=` it.

    As `verify_commit=True` does, but the outcome is also known once a standby was
    promoted, whatever the replication. It costs one round trip in each unit that has
    written. Unknown after more than one failover, or a crash, in that time.

    Safe to use for several databases.

    .. versionadded:: 0.2
    """

    def before_commit(self, connection: Connection) -> LogPosition | None:
        """Return the id of the transaction, and a position behind its first record."""
        *installation, txid, position = fetch_row(connection, _MARK)
        if txid is None or position is None:
            return None
        known = Installation(*installation)
        return LogPosition(int(txid), known, position, time.monotonic())

    def committed(self, connection: Connection, mark: LogPosition) -> bool | None:
        """Return whether it was committed; raises `CommitUnknownError`."""
        *installation, age = fetch_row(connection, _PRESENT)
        now = Installation(*installation)
        if now == mark.installation:
            return committed_here(connection, mark.txid)
        if not now.succeeds(mark.installation):
            return None
        status = status_since(connection, mark.txid)
        if status != "committed":
            return False if status == "aborted" else None
        # A crash would have reset the statistics, and replayed more of the log.
        has_crashed = age is None or age < time.monotonic() - mark.taken_at + _MARGIN
        if has_crashed or not now.is_next_to(mark.installation):
            raise CommitUnknownError(_UNKNOWABLE)
        replayed = connection.execute(text(_REPLAYED), {"position": mark.position})
        found: bool | None = replayed.scalar_one()
        if found is None:  # it was restarted since
            raise CommitUnknownError(_UNKNOWABLE)
        return found


class LogPosition(NamedTuple):
    """A transaction that has written, and a position in the log after that."""

    txid: int
    installation: Installation
    position: str
    taken_at: float
    """By `time.monotonic()`."""
