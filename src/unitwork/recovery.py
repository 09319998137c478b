"""What a crash has left of commits in two phases: found, and brought to its end.

`DBSessionMiddleware(twophase=True)` does that while the application runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Connection
from sqlalchemy.util import greenlet_spawn

from ._branch import Branch, Gone
from ._engine.commit_status import fresh_connection
from ._twophase import DECIDED_WITHIN, Order
from .database import AsyncDatabase, Database
from .errors import UsageError

if TYPE_CHECKING:
    from ._source import Source

__all__ = ["Recovered", "arecover", "recover"]

log = logging.getLogger("unitwork")

MIN_AGE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A prepared transaction that was left behind, and what has been done with it.

    *database* is the name of its database, *transaction* its own. What could not be
    told for sure, or not be done, was `"left"`; *reason* says why.

    .. versionadded:: 0.1
    """

    database: str
    transaction: str
    action: Literal["committed", "rolled back", "left"]
    reason: str


def recover(*databases: Database[Any], min_age: float = MIN_AGE) -> list[Recovered]:
    """Commit or roll back the prepared transactions that a crash has left behind.

    Give the *databases* of the middleware, in the same order: others are not touched,
    and neither are those that have not been seen prepared for *min_age* seconds. It
    waits for that long if it finds any. Give 0 only while no application runs: else
    what is just being committed would be taken for left behind.

    It may run in several places at once. Raises `UsageError` for a *min_age* that is
    not 0 and shorter than a commit may take; a database that can't be asked is logged,
    and what depends on its answer is left.

    .. versionadded:: 0.1
    """
    plan = _recovering(_order_of(databases), _checked(min_age))
    return _drive(plan)


async def arecover(
    *databases: AsyncDatabase[Any] | Database[Any], min_age: float = MIN_AGE
) -> list[Recovered]:
    """Commit or roll back what a crash has left, as `recover()` does, in an event loop.

    Takes databases of both kinds.

    .. versionadded:: 0.1
    """
    plan = _recovering(_order_of(databases), _checked(min_age))
    return await _adrive(plan)


class Janitor:
    """Recovers, again and again, for as long as an application runs."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _work(self) -> None:
        while True:
            try:
                await _adrive(_recovering(self._order, MIN_AGE))
            except Exception as error:  # of the engine's source, or a driver
                log.error("recovery failed, and is tried again later", exc_info=error)
            await asyncio.sleep(MIN_AGE)


class _Ask(NamedTuple):
    """A call, with a connection of *source* that is outside any pool."""

    source: Source
    call: Callable[[Connection], Any]


class _Wait(NamedTuple):
    seconds: float


class _Look(NamedTuple):
    """What all databases have said: the branches, and the places of the silent ones."""

    branches: frozenset[Branch]
    silent: frozenset[int]


_Steps = Generator["_Ask | _Wait", Any, list[Recovered]]


def _recovering(order: Order, min_age: float) -> _Steps:
    """Look, wait, look again, and end what was there both times.

    Why that is right. Of one unit let W be the witness and K any other branch.

    - W is prepared before K, commits before K and is rolled back after K, by whoever
      does it. So K without W means that W has committed, and K is committed. As the
      witness is asked after all others, it can't be that W was prepared only later.
    - W still there means that nobody has committed. A process that is just about to
      would do so within `DECIDED_WITHIN` of the first PREPARE; W was there *min_age*
      ago, which is more. So nobody will, and nobody was told that it had: all are
      rolled back, W last, and only if every other one was: should this process end
      here as well, the next one finds W and goes on.
    - If a database is silent there may be a K in it, so W stays. K may be committed
      all the same, once W's own database has said that W is gone.
    - Two that recover at once see the same W, or none, and do the same. What the other
      one was faster with is `Gone`, which is what was wanted.
    """
    before = yield from _look(order)
    if not before.branches:
        return []
    if min_age:
        yield _Wait(min_age)
    now = yield from _look(order)
    done: list[Recovered] = []
    for unit in sorted({(b.unit, b.witness) for b in now.branches & before.branches}):
        branches = sorted(
            (b for b in now.branches if (b.unit, b.witness) == unit),
            key=lambda branch: branch.place,
        )
        done += yield from _end_unit(order, branches, before, now)
    for each in done:
        log.warning(
            "a prepared transaction of database %r was left behind: %s, as %s (%s)",
            each.database,
            each.action,
            each.reason,
            each.transaction,
        )
    return done


def _look(order: Order) -> Generator[_Ask, Any, _Look]:
    """Ask all databases for what is prepared, the witnesses last."""
    branches: set[Branch] = set()
    silent: set[int] = set()
    for place, source in reversed(list(enumerate(order.sources, 1))):
        ask = partial(_prepared, order, source.name)
        try:
            names: Sequence[str] = yield _Ask(source, ask)
        except Exception as error:
            log.warning(
                "database %r can't be asked what is prepared",
                source.name,
                exc_info=error,
            )
            silent.add(place)
            continue
        for name in names:
            branch = Branch.read(name)
            if branch is not None and branch.place == place:
                branches.add(branch)
    ours = {b for b in branches if b.databases == order.fingerprint}
    return _Look(frozenset(ours), frozenset(silent))


def _prepared(order: Order, name: str, connection: Connection) -> list[str]:
    words = order.words(name, connection.engine)
    words.open(connection)
    return list(words.prepared(connection))


def _end_unit(
    order: Order, branches: Sequence[Branch], before: _Look, now: _Look
) -> Generator[_Ask, Any, list[Recovered]]:
    witness = branches[0]._replace(place=branches[0].witness)
    if witness.place in now.silent:
        return _left(order, branches, "the database that knows is silent")
    done: list[Recovered] = []
    if witness not in branches:
        for branch in branches:
            if branch in before.branches:
                done += yield from _end(order, branch, commit=True)
        return done
    if now.silent:
        return _left(order, branches, "a database is silent that may hold more of it")
    if witness not in before.branches:
        return _left(order, branches, "it is too young")
    for branch in reversed(branches):
        done += yield from _end(order, branch, commit=False)
        if done and done[-1].action == "left":
            break
    return done


def _end(
    order: Order, branch: Branch, *, commit: bool
) -> Generator[_Ask, Any, list[Recovered]]:
    source = order.sources[branch.place - 1]
    call = partial(_end_on, order, source.name, branch, commit)
    try:
        ended = yield _Ask(source, call)
    except Exception as error:
        return _left(order, [branch], f"it could not be ended: {error}")
    if ended is None:
        return []  # another recovery was faster
    if not ended:
        return _left(order, [branch], "the connection that has prepared it still lives")
    action: Literal["committed", "rolled back"]
    action = "committed" if commit else "rolled back"
    reason = "the first has committed" if commit else "none has committed"
    return [_recovered(source, branch, action, reason)]


def _end_on(
    order: Order, name: str, branch: Branch, commit: bool, connection: Connection
) -> bool | None:
    """End a branch: `None` if there is none any more, `False` if it is in use."""
    words = order.words(name, connection.engine)
    words.open(connection)
    try:
        words.end(connection, str(branch), commit=commit)
    except Gone:
        return False if str(branch) in words.prepared(connection) else None
    return True


def _left(order: Order, branches: Sequence[Branch], reason: str) -> list[Recovered]:
    return [
        _recovered(order.sources[branch.place - 1], branch, "left", reason)
        for branch in branches
    ]


def _recovered(
    source: Source,
    branch: Branch,
    action: Literal["committed", "rolled back", "left"],
    reason: str,
) -> Recovered:
    return Recovered(
        database=source.name, transaction=str(branch), action=action, reason=reason
    )


def _drive(plan: _Steps) -> list[Recovered]:
    """Make each step at once, in this thread."""
    result: Any = None
    error: Exception | None = None
    while True:
        try:
            step = plan.throw(error) if error is not None else plan.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # by the plan's type
        result = error = None
        try:
            if isinstance(step, _Wait):
                time.sleep(step.seconds)
            else:
                result = _call(step)
        except Exception as caught:
            error = caught


async def _adrive(plan: _Steps) -> list[Recovered]:
    """Make each step where it belongs, and await it."""
    result: Any = None
    error: Exception | None = None
    while True:
        try:
            step = plan.throw(error) if error is not None else plan.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # by the plan's type
        result = error = None
        try:
            if isinstance(step, _Wait):
                await asyncio.sleep(step.seconds)
            elif step.source.is_async:
                result = await greenlet_spawn(_call, step)
            else:
                result = await to_thread.run_sync(
                    _call, step, limiter=CapacityLimiter(1), abandon_on_cancel=True
                )
        except Exception as caught:
            error = caught


def _call(step: _Ask) -> Any:
    with fresh_connection(step.source.factory.engine) as fresh:
        return step.call(fresh)


def _order_of(databases: Sequence[AsyncDatabase[Any] | Database[Any]]) -> Order:
    return Order([database._source for database in databases])


def _checked(min_age: float) -> float:
    if min_age != 0 and not min_age > DECIDED_WITHIN:
        raise UsageError(
            f"min_age is {min_age!r}; give more than {DECIDED_WITHIN:g} seconds, which "
            "a commit may take, or 0 if no application runs"
        )
    return min_age
