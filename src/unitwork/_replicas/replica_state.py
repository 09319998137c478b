"""The query for the state of a replica, in the message with BEGIN, and its result.

Sources: PostgreSQL, "Recovery Information Functions", "pg_stat_wal_receiver" and
"Control Data Functions".
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .._driver.gtids import LogPosition, can_reach, covers
from .._driver.wal_position import WalPosition, read_lsn, short_system

__all__ = [
    "POSITION_QUERY",
    "STATE_QUERY",
    "STOPPED",
    "ReplicaState",
    "ReplicaVerdict",
    "Run",
    "judge_replica",
    "read_state",
]

_POSITION = """
pg_is_in_recovery(), coalesce(CAST(pg_last_wal_replay_lsn() AS text), ''),
EXTRACT(epoch FROM pg_postmaster_start_time()), current_setting('transaction_isolation')
"""
# What it has received and not replayed is as old as its last COMMIT. Without a receiver
# it may not even know of what it lacks. If it has replayed more than it receives, it
# has left the history of its primary, and receives nothing that it could replay. If all
# is replayed, it is behind by the time that its last message was under way; that is
# shown with the role `pg_read_all_stats` only.
_LAG = """
CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()
  AND receiver.pid IS NOT NULL
THEN greatest(0, EXTRACT(epoch FROM last_msg_receipt_time - last_msg_send_time))
ELSE coalesce(EXTRACT(epoch FROM
  clock_timestamp() - pg_last_xact_replay_timestamp()), 0) END
"""
# The timeline of the receiver is shown with that role only, too. The others are those
# of its last checkpoint and of what it has written to its files.
_HISTORY = """
system_identifier, greatest(received_tli, timeline_id, min_recovery_end_timeline)
"""
POSITION_QUERY = f"SELECT concat_ws('|', {_POSITION})"
STATE_QUERY = f"""
SELECT concat_ws('|', {_POSITION}, {_LAG}, {_HISTORY})
FROM pg_stat_get_wal_receiver() AS receiver, pg_control_system(),
  pg_control_checkpoint(), pg_control_recovery()
"""
"""Takes about 0.2 ms more of the server's time: it reads a file, for one."""
STOPPED = math.inf
"""The lag of a replica that replays nothing, if that is all that is known."""
_EACH_STATEMENT_SEES_MORE = ("read committed", "read uncommitted")


class Run(NamedTuple):
    """A server from its start to its end, during which its history only grows."""

    started: str
    system: int
    timeline: int
    """It follows this one at least."""


class ReplicaState(NamedTuple):
    """What a replica reports of itself."""

    in_recovery: bool
    """Whether it is a replica still, and was not promoted."""
    position: LogPosition | None
    """Up to where it has replayed."""
    lag: float | None
    """How many seconds it lags behind; `None`: not queried, or not known."""
    sees_more: bool
    """Whether the next statement sees what it has replayed by then.

    Otherwise the snapshot of the query, which may be older than its result, is that
    of the whole transaction.
    """
    has_waited: bool = False
    """Whether it has waited itself for what was needed."""
    run: Run | None = None


class ReplicaVerdict(NamedTuple):
    """Whether a replica may serve a unit."""

    usable: bool
    """Whether it may serve units at all; if not, *reason* says why."""
    ready: bool
    """Whether it has replayed what this unit must see."""
    may_become_ready: bool = False
    reason: str = ""


_READY = ReplicaVerdict(True, True)


def read_state(value: str | None, known: Run | None = None) -> ReplicaState | None:
    """The state by the *value* of the query; `None` if the server has given none.

    Without its history there is no position, unless it is in the run that is *known*.
    """
    try:
        in_recovery, lsn, started, isolation, *rest = (value or "").split("|")
        lag, run = None, known
        if rest:
            run = Run(started, short_system(rest[1]), int(rest[2]))
            lag = float(rest[0])
        at = None
        if lsn and run is not None and run.started == started:
            at = WalPosition(run.system, run.timeline, read_lsn(lsn))
        else:  # Amazon Aurora has no position
            run = None
    except (IndexError, ValueError):
        return None
    sees_more = isolation in _EACH_STATEMENT_SEES_MORE
    return ReplicaState(in_recovery == "t", at, lag, sees_more, run=run)


def judge_replica(
    state: ReplicaState | None, needed: LogPosition | None, max_lag: float | None
) -> ReplicaVerdict:
    """Decide by *state* whether a replica may serve a unit.

    It must have replayed up to *needed*; `None`: no matter how far it has come.
    """
    if state is None:
        return ReplicaVerdict(True, needed is None)
    if not state.in_recovery:
        return ReplicaVerdict(False, False, reason="it was promoted, and is no replica")
    if max_lag is not None and state.lag is not None and state.lag > max_lag:
        if state.lag == STOPPED:
            return ReplicaVerdict(False, False, reason="its replication has stopped")
        reason = f"it lags {state.lag:.1f} seconds behind, more than {max_lag:g}"
        return ReplicaVerdict(False, False, reason=reason)
    if needed is None:
        return _READY
    if not state.sees_more or not can_reach(state.position, needed):
        return ReplicaVerdict(True, False)
    is_ready = covers(state.position, needed)
    return ReplicaVerdict(
        True, is_ready, may_become_ready=not is_ready and not state.has_waited
    )
