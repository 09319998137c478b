"""The order of calls that ends a unit: a generator of steps."""

from __future__ import annotations

import logging
import time
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from sqlalchemy.orm import Session

from . import _session
from ._drive import Pause, Plan, Step
from ._ending import Outcome
from ._engine.commit_status import verify
from ._hooks import Hooks
from ._session import Lease
from ._twophase import Together, commit_together, partial_commit, split
from .errors import CommitUnknownError

__all__ = ["finish"]

log = logging.getLogger("unitwork")

_PAUSE = 0.005  # seconds between the first two questions to a database in doubt

Settled = Callable[[Outcome, BaseException | None], None]
"""Told what became of the work, and which error made COMMIT fail."""


def finish(
    leases: Callable[[], Sequence[Lease]],
    hooks: Callable[[], Hooks | None],
    *,
    commit: bool,
    doomed: Callable[[], bool] = lambda: False,
    settled: Settled = lambda outcome, error: None,
    together: Together | None = None,
) -> Plan[bool]:
    """Commit or roll back whatever the *leases* have open, then call the *hooks*.

    Says whether it was committed: a `before_commit` hook may have *doomed* the unit.
    Connections are back in the pool, and *settled* has been told, before the first
    `on_commit` hook runs: one that opens a session of its own must find a connection.
    What a flush of COMMIT itself has registered is among the *hooks* by then.
    Several are committed in their order, or *together*, in two phases.
    """
    committed = False
    pending: Sequence[Lease] = ()
    done: list[Lease] = []
    try:
        if commit and not doomed():
            pending = yield from _get_ready(leases, hooks())
        if commit and not doomed():
            if len(pending) == 1:
                yield from _commit(pending[0])
            else:
                yield from _commit_all(pending, done, together)
            committed = True
    except BaseException as error:
        outcome = _outcome(error, pending, done)
        sure = [lease for lease in leases() if lease.doubts is None]
        for lease in sure:
            lease.doubts = []  # from now on nobody may interrupt
        try:
            yield from _roll_back(leases())
        finally:
            _forget_doubts(sure)
            settled(outcome, error)
        yield from _call_hooks(hooks(), outcome)
        raise
    if committed:
        settled(Outcome.COMMITTED if pending else Outcome.EMPTY, None)
        yield from _call_hooks(hooks(), Outcome.COMMITTED)
    else:
        yield from _drop(leases(), settled)
        yield from _call_hooks(hooks(), Outcome.ROLLED_BACK)
    return committed


def _drop(leases: Sequence[Lease], settled: Settled) -> Plan[None]:
    """Roll back because that was decided."""
    try:
        yield from _roll_back(leases)
    finally:
        settled(Outcome.ROLLED_BACK if leases else Outcome.EMPTY, None)


def _get_ready(
    leases: Callable[[], Sequence[Lease]], hooks: Hooks | None
) -> Plan[Sequence[Lease]]:
    """Do what comes before COMMIT; give what is to be committed."""
    pending = leases()
    for lease in pending:
        if lease.suspect:
            yield Step(_session.verify, lease)
    if hooks is not None and hooks.before_commit:
        for hook in hooks.take_before_commit():
            yield Step(hook.call)
        pending = leases()  # the hooks may have begun more
    return pending


def _outcome(
    error: BaseException, pending: Sequence[Lease], done: Sequence[Lease]
) -> Outcome:
    if done:
        return Outcome.PARTIAL
    unknown = any(lease.in_doubt(error) for lease in pending)
    return Outcome.UNKNOWN if unknown else Outcome.ROLLED_BACK


def _commit_all(
    leases: Sequence[Lease], done: list[Lease], together: Together | None
) -> Plan[None]:
    """Commit one after the other; *done* are those that have, if not all will."""
    for lease in leases:  # let what can fail do so before anything is committed
        yield Step(Session.flush, lease)
    if together is None:
        yield from _commit_in_order(leases, done)
        return
    alone, parts = yield from split(leases, together)
    for lease in alone:
        yield from _commit(lease)
    if parts:
        yield from commit_together(parts, done)
    _forget_doubts(done)


def _commit_in_order(leases: Sequence[Lease], done: list[Lease]) -> Plan[None]:
    for number, lease in enumerate(leases):
        try:
            yield from _commit(lease)
        except Exception as error:
            if not done:
                raise
            left = [each.name for each in leases[number:]]
            unknown = left[:1] if isinstance(error, CommitUnknownError) else []
            raise partial_commit(
                [each.name for each in done],
                rolled_back=left[len(unknown) :],
                unknown=unknown,
            ) from (error.__cause__ if unknown else error)
        done.append(lease)
        lease.doubts = []  # from now on nobody may interrupt
    _forget_doubts(done)


def _forget_doubts(leases: Sequence[Lease]) -> None:
    for lease in leases:
        lease.doubts = None


def _commit(lease: Lease) -> Plan[None]:
    """Commit. If nobody tells how that went, ask the database itself."""
    try:
        yield Step(_session.commit, lease, lease.settings.commit_timeout)
    except Exception as error:
        if not lease.in_doubt(error):
            raise
        committed = yield from _settle(lease)
        if committed is None:
            raise CommitUnknownError(
                "the connection was lost while COMMIT was under way: the work may be "
                "stored or not; look before trying again"
            ) from error
        if not committed:
            raise
        log.warning("COMMIT failed, but the database has committed", exc_info=error)
        yield Step(_session.accept, lease)


def _settle(lease: Lease) -> Plan[bool | None]:
    """Ask until the database knows what became of a COMMIT, or the time is over."""
    doubts, limit = lease.doubts, lease.settings.verify_timeout
    until = time.monotonic() + limit
    pause = _PAUSE
    committed: bool | None = None
    while doubts and committed is None and (left := until - time.monotonic()) > 0:
        once = min(left, limit / 4)
        with suppress(TimeoutError):
            committed = yield Step(
                partial(verify, doubts, lease.is_async, once), lease, once / 2
            )
        if committed is None:
            pause = min(2 * pause, 1.0)
            yield Pause(pause)
    if doubts and committed is not None:
        lease.doubts = None  # no doubt any more
    return committed


def _roll_back(leases: Sequence[Lease]) -> Plan[None]:
    for lease in leases:
        rollback = Step(_session.rollback, lease, lease.patience)
        try:
            yield rollback
        except Exception as error:
            _complain(lease, "a connection could not be rolled back", error)
            lease.discard()
            try:
                yield rollback  # its connection is gone; now for the session itself
            except Exception as again:
                _complain(lease, "a session could not be closed", again)


def _complain(lease: Lease, what: str, error: Exception) -> None:
    if not lease.over:  # its own task has come to an end meanwhile, and was first
        log.warning(what, exc_info=error)


def _call_hooks(hooks: Hooks | None, outcome: Outcome) -> Plan[None]:
    """What is done is done: a hook that fails is logged, and the others still run."""
    for hook in hooks.take(outcome) if hooks else ():
        try:
            yield Step(hook.call)
        except (Exception, CancelledError) as error:
            log.error("%s failed after the unit had ended", hook.name, exc_info=error)
