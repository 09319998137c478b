"""The step that commits a session, made in the task that needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._concurrency.shield import uninterrupted
from .._concurrency.worker import current_worker
from .._concurrency.worker_threads import run_in_worker_thread
from .._driver.sqlalchemy_internals import greenlets
from .._transaction.loan import TransactionState

if TYPE_CHECKING:
    from .unit_session import UnitSession

__all__ = ["make_commit_step"]

_ENDING = TransactionState.ENDING


async def make_commit_step(
    session: UnitSession, call: Callable[..., Any], argument: object
) -> Any:
    """Make *call* in a greenlet, as `greenlet_spawn()` and `make_step()` together do.

    For a sync session make it in a worker thread.

    From the time when COMMIT may be sent, all that is awaited here is the answer to it.
    What listeners await has a task of its own: their time limits and task groups cancel
    the task that they began in, and this one can't be cancelled any more.
    """
    activity, loan = session.activity, session.loans[0]
    if not session.is_async:
        return await run_in_worker_thread(activity.make_step, call, argument)
    make, current = greenlets()
    activity.step_of = current_worker()
    greenlet = make(call, current())
    try:
        found = greenlet.switch(argument)
        while not greenlet.dead:
            try:
                if activity.is_reserved and loan.state is not _ENDING:
                    value = await uninterrupted(activity.go_on(found), _at_once)
                else:
                    value = await found
            except BaseException:
                found = greenlet.throw(*sys.exc_info())
            else:
                found = greenlet.switch(value)
    finally:
        activity.step_of = None
    return found


def _at_once() -> float:
    """Once its time is over what a listener awaits is cancelled, as COMMIT would be."""
    return 0.0
