"""What a replica is asked, in the message with BEGIN, and what its answer means.

Sources: PostgreSQL, "Recovery Information Functions" and "pg_stat_wal_receiver".
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .._driver.gtids import LogPosition, covers

__all__ = ["QUESTION", "STOPPED", "Answer", "Verdict", "judge", "read_answer"]

# What it has received and not replayed is as old as its last COMMIT. Without a receiver
# it may not even know of what it lacks.
QUESTION = """
SELECT concat_ws('|', pg_is_in_recovery(),
  pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0'),
  CASE WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn()
    AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
  ELSE coalesce(EXTRACT(epoch FROM
    clock_timestamp() - pg_last_xact_replay_timestamp()), 0) END,
  current_setting('transaction_isolation'))
"""
STOPPED = math.inf
"""The lag of a replica that replays nothing, if that is all that is known."""
_EACH_STATEMENT_SEES_MORE = ("read committed", "read uncommitted")


class Answer(NamedTuple):
    """What a replica has said of itself."""

    in_recovery: bool
    """Whether it is a replica still, and was not promoted."""
    position: LogPosition | None
    """Up to where it has replayed."""
    lag: float | None
    """How many seconds it lags behind; `None`: it was not asked, or can't say."""
    sees_more: bool
    """Whether the next statement sees what it has replayed by then.

    Otherwise the snapshot of the question, which may be older than its answer, is that
    of the whole transaction.
    """
    has_waited: bool = False
    """Whether it has waited itself for what was needed."""


class Verdict(NamedTuple):
    """Whether a replica may serve a unit."""

    usable: bool
    """Whether it may serve units at all; if not, *reason* says why."""
    ready: bool
    """Whether it has replayed what this unit must see."""
    may_become_ready: bool = False
    reason: str = ""


_READY = Verdict(True, True)


def read_answer(value: str | None) -> Answer | None:
    """The answer to `QUESTION`; `None` if the server has not given one."""
    parts = (value or "").split("|")
    if len(parts) != 4:  # Amazon Aurora has no position
        return None
    in_recovery, position, lag, isolation = parts
    try:
        return Answer(
            in_recovery == "t",
            int(position),
            float(lag),
            isolation in _EACH_STATEMENT_SEES_MORE,
        )
    except ValueError:
        return None


def judge(
    answer: Answer | None, needed: LogPosition | None, max_lag: float | None
) -> Verdict:
    """Decide by *answer* whether a replica may serve a unit.

    It must have replayed up to *needed*; `None`: no matter how far it has come.
    """
    if answer is None:
        return Verdict(True, needed is None)
    if not answer.in_recovery:
        return Verdict(False, False, reason="it was promoted, and is no replica")
    if max_lag is not None and answer.lag is not None and answer.lag > max_lag:
        if answer.lag == STOPPED:
            return Verdict(False, False, reason="its replication has stopped")
        reason = f"it lags {answer.lag:.1f} seconds behind, more than {max_lag:g}"
        return Verdict(False, False, reason=reason)
    if needed is None:
        return _READY
    if not answer.sees_more or isinstance(answer.position, int) is not isinstance(
        needed, int
    ):
        return Verdict(True, False)
    is_ready = covers(answer.position, needed)
    return Verdict(
        True, is_ready, may_become_ready=not is_ready and not answer.has_waited
    )
