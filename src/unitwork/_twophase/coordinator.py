"""Several databases committed as one: prepare all, then commit all.

The first that takes part is the witness. It is prepared first, commits first and is
rolled back last, so that the prepared transactions of a unit show what was decided
about it, without a log: while the witness is prepared, none has committed; if another
one is prepared and the witness is not, the witness has committed (see `recovery`).

1. Prepare the witness, then the others. A failure is a decision to roll back, in the
   opposite order. If PREPARE was not acknowledged, its outcome is found out first: the
   witness must not be rolled back while another one could still become prepared.
2. Commit the witness: that is the decision. It is sent within `DECIDED_WITHIN` seconds
   of the first PREPARE, or never; after longer than that `recover()` may have decided.
3. Commit the others. Whatever happens now, they will be committed: on a connection of
   its own if theirs is broken, or by `recover()`.

MariaDB forgets a prepared transaction that has changed no row when its server restarts.
A witness that is missing for this reason has no work to lose, but looks committed. With
one other database that is harmless: it was prepared after the witness, so all were. Of
three the last might not have been prepared: so MariaDB may be one of two only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from .._classify.classification import Phase, classify
from .._execution.accepted_commit import accept_commit
from .._execution.plan import Plan, Step
from .._execution.repeated_query import query_until_known
from .._observing.unit_events import OutcomeVerified
from .._session.state import CommitWithdrawn
from .._session.unit_session import UnitSession
from .._transaction.lost_work import partial_commit
from .failure import unknown_commit
from .participants import Participant, TwoPhaseCommit

__all__ = ["DECIDED_WITHIN", "commit_together", "split"]

log = logging.getLogger("unitwork")

DECIDED_WITHIN = 30.0
"""Seconds from the first PREPARE to the decision; less than `recover()` waits for."""
_LEAST = 0.005  # seconds that a step gets however late it is


def split(
    sessions: Sequence[UnitSession], two_phase: TwoPhaseCommit
) -> Plan[tuple[Sequence[UnitSession], list[Participant]]]:
    """Separate those that have something to store from the others.

    A single one needs no two phases, and is committed in one phase, after the others.
    """
    if not all(session.owned for session in sessions):
        return sessions, []  # a test's own
    marks: list[tuple[UnitSession, Any]] = []
    alone: list[UnitSession] = []
    for session in sessions:
        mark = yield Step(partial(two_phase.mark, session=session), session)
        if mark is None:
            alone.append(session)
        else:
            marks.append((session, mark))
    if len(marks) < 2:
        return [*alone, *(session for session, _ in marks)], []
    witness = marks[0][0]
    return alone, [
        two_phase.participant(session, mark, witness) for session, mark in marks
    ]


def commit_together(
    parts: Sequence[Participant], done: list[UnitSession]
) -> Plan[bool]:
    """Commit all or nothing; *done* are those that have committed.

    Returns `False` if a rollback was requested while they were prepared.
    Raises `CommitUnknownError` if it can't be found out in time which of the two it is,
    and `PartialCommitError` if a commit that is decided could not be finished.
    """
    until = time.monotonic() + DECIDED_WITHIN
    for part in parts:
        part.session.commit_sent()  # nothing may interrupt it from now on
    try:
        with _failure_reported(parts):
            yield from _prepare(parts, until)
    except CommitWithdrawn:
        return False
    with _failure_reported(parts):
        yield from _decide(parts, until)
        done.append(parts[0].session)
        yield from _follow(parts[1:], done)
    return True


@contextmanager
def _failure_reported(parts: Sequence[Participant]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        for part in parts:
            part.not_committed(error)
        raise


def _prepare(parts: Sequence[Participant], until: float) -> Plan[None]:
    ready: list[Participant] = []
    try:
        for part in parts:
            yield Step(part.prepare, part.session, _time_left(until, part))
            ready.append(part)
        if time.monotonic() >= until:
            raise TimeoutError(
                f"PREPARE has taken more than {DECIDED_WITHIN:g} seconds; nothing is "
                "committed"
            )
    except BaseException as error:
        doubtful = None
        if len(ready) < len(parts) and classify(error, phase=Phase.COMMIT).unknown:
            doubtful = parts[len(ready)]
        sure = yield from _take_back(ready, doubtful)
        if sure:
            for part in parts:
                part.session.commit_ended()
        if sure or not isinstance(error, Exception):
            raise
        raise unknown_commit([each.session.name for each in parts]) from error


def _take_back(
    ready: Sequence[Participant], doubtful: Participant | None
) -> Plan[bool]:
    """Roll back what is prepared, the witness last; return whether none can commit."""
    sure = True
    if doubtful is not None:
        committed = yield from _end_elsewhere(doubtful, commit=False)
        sure = committed is False or not ready
    for part in reversed(ready):
        witness = part is ready[0]
        if witness and not sure:
            break
        try:
            yield Step(part.roll_back, part.session, part.session.settings.end_timeout)
        except Exception as error:
            committed = yield from _end_elsewhere(part, commit=False)
            if committed is None:
                log.warning(
                    "a prepared transaction of database %r is left to recover()",
                    part.session.name,
                    exc_info=error,
                )
            sure = sure and (committed is False or witness)
    return sure


def _decide(parts: Sequence[Participant], until: float) -> Plan[None]:
    witness = parts[0]
    session = witness.session
    try:
        yield Step(witness.commit, session, _time_left(until, witness))
    except Exception as error:
        committed = yield from _end_elsewhere(witness, commit=True, until=until)
        if committed is False:  # lost with its server: the others would look decided
            yield from _take_back(parts[1:], None)
        if not committed:
            raise unknown_commit([each.session.name for each in parts]) from error
        yield from accept_commit(session)


def _follow(parts: Sequence[Participant], done: list[UnitSession]) -> Plan[None]:
    """Commit what is decided; all that can be, before the first failure is raised."""
    first: Exception | None = None
    lost: dict[bool | None, list[str]] = {None: [], False: []}
    for part in parts:
        session = part.session
        try:
            yield Step(part.commit, session, session.settings.commit_timeout)
        except Exception as error:
            committed = yield from _end_elsewhere(part, commit=True)
            if committed is not True:
                first = first or error
                lost[committed].append(session.name)
                continue
            yield from accept_commit(session)
        done.append(session)
    if first is not None:
        raise partial_commit(
            [session.name for session in done],
            rolled_back=lost[False],
            unknown=lost[None],
            advice="what is prepared will be committed by recover()",
        ) from first


def _end_elsewhere(
    part: Participant, *, commit: bool, until: float | None = None
) -> Plan[bool | None]:
    """End it on another connection; try again until the time is over."""
    part.session.abort_connections()
    end = partial(part.end_elsewhere, commit=commit)
    began = time.monotonic()
    found = yield from query_until_known(part.session, end, until)
    if (report := part.session.owner.report) is not None:
        duration = time.monotonic() - began
        report.emit(OutcomeVerified, part.session.name, duration, found)
    return found


def _time_left(until: float, part: Participant) -> float:
    left = max(until - time.monotonic(), _LEAST)
    limit = part.session.settings.commit_timeout
    return left if limit is None else min(left, limit)
