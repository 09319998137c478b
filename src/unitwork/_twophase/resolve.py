"""What a crash has left of commits in two phases: found, and brought to its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection

from .._engine.commit_status import fresh_connection
from .._execution.plan import Call, Pause, Plan
from .._session.database_core import DatabaseCore
from .dialects import NoSuchPreparedTransaction
from .order import CommitOrder
from .xid import Xid

__all__ = ["Recovered", "recovery"]

log = logging.getLogger("unitwork")


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


class _Look(NamedTuple):
    """What all databases have said: the xids, and the places of the silent ones."""

    xids: frozenset[Xid]
    silent: frozenset[int]


def recovery(order: CommitOrder, min_age: float) -> Plan[list[Recovered]]:
    """Look, wait, look again, and end what was there both times.

    Why that is right. Of one unit let W be the witness and K any other xid.

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
      one was faster with is `NoSuchPreparedTransaction`, which is what was wanted.
    """
    before = yield from _look(order)
    if not before.xids:
        return []
    if min_age:
        yield Pause(min_age)
    now = yield from _look(order)
    done: list[Recovered] = []
    for unit in sorted({(b.unit, b.witness) for b in now.xids & before.xids}):
        xids = sorted(
            (b for b in now.xids if (b.unit, b.witness) == unit),
            key=lambda xid: xid.place,
        )
        done += yield from _end_unit(order, xids, before, now)
    for each in done:
        log.warning(
            "a prepared transaction of database %r was left behind: %s, as %s (%s)",
            each.database,
            each.action,
            each.reason,
            each.transaction,
        )
    return done


def _look(order: CommitOrder) -> Plan[_Look]:
    """Ask all databases for what is prepared, the witnesses last."""
    xids: set[Xid] = set()
    silent: set[int] = set()
    for place, database in reversed(list(enumerate(order.databases, 1))):
        ask = partial(_prepared, order, database.name)
        try:
            names: Sequence[str] = yield _call(database, ask)
        except Exception as error:
            log.warning(
                "database %r can't be asked what is prepared",
                database.name,
                exc_info=error,
            )
            silent.add(place)
            continue
        for name in names:
            xid = Xid.read(name)
            if xid is not None and xid.place == place:
                xids.add(xid)
    ours = {b for b in xids if b.databases == order.fingerprint}
    return _Look(frozenset(ours), frozenset(silent))


def _prepared(order: CommitOrder, name: str, connection: Connection) -> list[str]:
    dialect = order.dialect(name, connection.engine)
    dialect.open(connection)
    return list(dialect.prepared(connection))


def _end_unit(
    order: CommitOrder, xids: Sequence[Xid], before: _Look, now: _Look
) -> Plan[list[Recovered]]:
    witness = xids[0]._replace(place=xids[0].witness)
    if witness.place in now.silent:
        return _left(order, xids, "the database that knows is silent")
    done: list[Recovered] = []
    if witness not in xids:
        for xid in xids:
            if xid in before.xids:
                done += yield from _end(order, xid, commit=True)
        return done
    if now.silent:
        return _left(order, xids, "a database is silent that may hold more of it")
    if witness not in before.xids:
        return _left(order, xids, "it is too young")
    for xid in reversed(xids):
        done += yield from _end(order, xid, commit=False)
        if done and done[-1].action == "left":
            break
    return done


def _end(order: CommitOrder, xid: Xid, *, commit: bool) -> Plan[list[Recovered]]:
    database = order.databases[xid.place - 1]
    call = partial(_end_on, order, database.name, xid, commit)
    try:
        ended = yield _call(database, call)
    except Exception as error:
        return _left(order, [xid], f"it could not be ended: {error}")
    if ended is None:
        return []  # another recovery was faster
    if not ended:
        return _left(order, [xid], "the connection that has prepared it still lives")
    action: Literal["committed", "rolled back"]
    action = "committed" if commit else "rolled back"
    reason = "the first has committed" if commit else "none has committed"
    return [_recovered(database, xid, action, reason)]


def _end_on(
    order: CommitOrder, name: str, xid: Xid, commit: bool, connection: Connection
) -> bool | None:
    """End a xid: `None` if there is none any more, `False` if it is in use."""
    dialect = order.dialect(name, connection.engine)
    dialect.open(connection)
    try:
        dialect.end(connection, str(xid), commit=commit)
    except NoSuchPreparedTransaction:
        return False if str(xid) in dialect.prepared(connection) else None
    return True


def _left(order: CommitOrder, xids: Sequence[Xid], reason: str) -> list[Recovered]:
    return [
        _recovered(order.databases[xid.place - 1], xid, "left", reason) for xid in xids
    ]


def _recovered(
    database: DatabaseCore,
    xid: Xid,
    action: Literal["committed", "rolled back", "left"],
    reason: str,
) -> Recovered:
    return Recovered(
        database=database.name, transaction=str(xid), action=action, reason=reason
    )


def _call(database: DatabaseCore, call: Callable[[Connection], Any]) -> Call:
    """A step: *call* with a connection of *database* that is outside any pool."""

    def connected() -> Any:
        with fresh_connection(database.factory.engine) as connection:
            return call(connection)

    return Call(connected, database.is_async)
