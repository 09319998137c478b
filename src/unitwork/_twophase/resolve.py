"""Finds the prepared transactions that a crash has left, and ends them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection

from .._execution.plan import Call, Pause, Plan
from .._session.database_core import DatabaseCore
from .._transaction.commit_status import fresh_connection
from .order import CommitOrder
from .statements import NoSuchPreparedTransaction
from .xid import Xid

__all__ = ["Recovered", "recovery"]

log = logging.getLogger("unitwork")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A prepared transaction that was left behind, and the action taken.

    *database* is the name of its database, *transaction* its own. *action* is `"left"`
    if the outcome could not be determined, or not be brought about; *reason* is why.

    .. versionadded:: 0.1
    """

    database: str
    transaction: str
    action: Literal["committed", "rolled back", "left"]
    reason: str


class _Survey(NamedTuple):
    """The prepared transactions, and the positions of databases without an answer.

    *statements* were under way before: what they prepare may be missing.
    """

    xids: frozenset[Xid]
    unanswered: frozenset[int]
    statements: Sequence[str]


def recovery(order: CommitOrder, min_age: float) -> Plan[list[Recovered]]:
    """Survey all databases twice, and end what was prepared both times.

    Why that is right. Of one unit let W be the witness and K any other xid.

    - Every process prepares W before K, commits W before K and rolls W back after K. So
      K without W means that W has committed, and K is committed. The database of W is
      queried after all others, so W can't have been prepared only later.
    - While W is prepared, none has committed. A process that is about to commit does so
      within `DECIDED_WITHIN` of the first PREPARE; W was prepared *min_age* ago, which
      is more. So no process will commit, and none has reported a commit: all are rolled
      back, W last, and only if every other one was. If this process ends here as well,
      the next one finds W and goes on.
    - A COMMIT of W, or a PREPARE of another K, may wait in its server longer than that,
      for a lock or for a standby, also if its client is gone. Until it has ended, all
      are left.
    - A database without an answer may have a K, so W stays. K is committed all the
      same once the database of W has answered that W is not prepared.
    - Two processes that recover at once find the same W, or none, and do the same. For
      the slower one that is `NoSuchPreparedTransaction`, which is as good.
    """
    before = yield from _survey(order)
    if not before.xids:
        return []
    if pause := max(min_age, order.detached_after):
        yield Pause(pause)
    now = yield from _survey(order)
    done: list[Recovered] = []
    for unit in sorted({(b.unit, b.witness) for b in now.xids & before.xids}):
        xids = sorted(
            (b for b in now.xids if (b.unit, b.witness) == unit),
            key=lambda xid: xid.position,
        )
        done += yield from _end_unit(order, xids, before, now)
    for each in done:
        log.warning(
            "database %r had a prepared transaction left behind: %s, because %s (%s)",
            each.database,
            each.action,
            each.reason,
            each.transaction,
        )
    return done


def _survey(order: CommitOrder) -> Plan[_Survey]:
    """Query all databases for their prepared transactions, the witnesses last."""
    xids: set[Xid] = set()
    unanswered: set[int] = set()
    under_way: list[str] = []
    for position, database in reversed(list(enumerate(order.databases, 1))):
        query = partial(_prepared, order, database.name)
        try:
            statements, names = yield _call(database, query)
        except Exception as error:
            log.warning(
                "database %r can't be queried for its prepared transactions",
                database.name,
                exc_info=error,
            )
            unanswered.add(position)
            continue
        under_way += statements
        for name in names:
            xid = Xid.read(name)
            if xid is not None and xid.position == position:
                xids.add(xid)
    ours = {b for b in xids if b.databases == order.fingerprint}
    return _Survey(frozenset(ours), frozenset(unanswered), under_way)


def _prepared(
    order: CommitOrder, name: str, connection: Connection
) -> tuple[list[str], list[str]]:
    dialect = order.dialect(name, connection.engine)
    dialect.open(connection)
    statements = list(dialect.statements_under_way(connection, order.fingerprint))
    return statements, list(dialect.prepared(connection))


def _end_unit(
    order: CommitOrder, xids: Sequence[Xid], before: _Survey, now: _Survey
) -> Plan[list[Recovered]]:
    witness = xids[0]._replace(position=xids[0].witness)
    if witness.position in now.unanswered:
        return _left(order, xids, "the database of the witness does not answer")
    done: list[Recovered] = []
    if witness not in xids:
        for xid in xids:
            if xid in before.xids:
                done += yield from _end(order, xid, commit=True)
        return done
    if now.unanswered:
        return _left(order, xids, "a database that may have more of it does not answer")
    if witness not in before.xids:
        return _left(order, xids, "it was prepared only now")
    if any(witness.unit in statement for statement in now.statements):
        return _left(order, xids, "a statement that prepares or ends it is under way")
    for xid in reversed(xids):
        done += yield from _end(order, xid, commit=False)
        if done and done[-1].action == "left":
            break
    return done


def _end(order: CommitOrder, xid: Xid, *, commit: bool) -> Plan[list[Recovered]]:
    database = order.databases[xid.position - 1]
    call = partial(_end_on, order, database.name, xid, commit)
    try:
        ended = yield _call(database, call)
    except Exception as error:
        return _left(order, [xid], f"it could not be ended: {error}")
    if ended is None:
        return []  # another process was faster
    if not ended:
        return _left(order, [xid], "the connection that has prepared it is still open")
    action: Literal["committed", "rolled back"]
    action = "committed" if commit else "rolled back"
    reason = "the first has committed" if commit else "none has committed"
    return [_recovered(database, xid, action, reason)]


def _end_on(
    order: CommitOrder, name: str, xid: Xid, commit: bool, connection: Connection
) -> bool | None:
    """End a xid; return `None` if there is none any more, `False` if it is in use."""
    dialect = order.dialect(name, connection.engine)
    dialect.open(connection)
    try:
        dialect.end(connection, str(xid), commit=commit)
    except NoSuchPreparedTransaction:
        return False if str(xid) in dialect.prepared(connection) else None
    return True


def _left(order: CommitOrder, xids: Sequence[Xid], reason: str) -> list[Recovered]:
    return [
        _recovered(order.databases[xid.position - 1], xid, "left", reason)
        for xid in xids
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
