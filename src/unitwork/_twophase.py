"""Several databases committed as one: prepare all, then commit all.

The first that takes part is the witness. It is prepared first, commits first and is
rolled back last, so that a look at the prepared transactions of a unit tells what was
decided about it, without a log: if the witness is still prepared, nobody has committed;
if it is gone and another one is left, it has committed (see `recovery`).

1. Prepare the witness, then the others. A failure is a decision to roll back, in the
   opposite order. If nobody told whether PREPARE has worked, that is found out first:
   the witness may not go while another one could still become prepared.
2. Commit the witness: that is the decision. It is sent within `DECIDED_WITHIN` seconds
   of the first PREPARE, or never; after longer than that `recover()` may have decided.
3. Commit the others. Whatever happens now, they will be committed: on a connection of
   its own if theirs is broken, or by `recover()`.

MariaDB forgets a prepared transaction that has changed no row when its server restarts.
A witness that is gone for this reason has nothing to lose, but tells that it committed.
This is true enough for one other database, which was prepared after it, so that all
were. Of three the last might not have been: so MariaDB may be one of two only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from . import _session
from ._branch import Branch, Gone, Words, fingerprint, words_for
from ._classify.classification import Phase, classify
from ._drive import Pause, Plan, Step
from ._engine.commit_status import ask_within, fresh_connection
from .errors import CommitUnknownError, PartialCommitError, UsageError

if TYPE_CHECKING:
    from ._session import Lease
    from ._source import Source

__all__ = ["DECIDED_WITHIN", "Order", "Part", "Together", "commit_together", "split"]

log = logging.getLogger("unitwork")

DECIDED_WITHIN = 30.0
"""Seconds from the first PREPARE to the decision; less than `recover()` waits for."""
_PAUSE = 0.005  # seconds between the first two attempts on other connections


class Order:
    """The databases of an application that commit together, in their order.

    Raises `UsageError` for one that can't, as soon as its engine is known.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self._places = {source.name: n for n, source in enumerate(self.sources, 1)}
        self._fingerprint = ""
        if len(self.sources) < 2:
            raise UsageError(
                "twophase=True is for several databases, and db is one; leave it out"
            )
        for source in self.sources:
            if source.known_engine is not None:
                self.words(source.name, source.known_engine)

    @property
    def fingerprint(self) -> str:
        if not self._fingerprint:
            named = [(each.name, each.factory.engine) for each in self.sources]
            self._fingerprint = fingerprint(named)
        return self._fingerprint

    def place(self, name: str) -> int:
        return self._places[name]

    def words(self, name: str, engine: Engine) -> Words:
        words = words_for(name, engine)
        if words.from_the_start and len(self.sources) > 2:
            raise UsageError(
                f"database {name!r} is MariaDB, which may be one of two databases that "
                f"commit in two phases, and not of {len(self.sources)}: it forgets a "
                "prepared transaction that has changed nothing"
            )
        return words


class Together:
    """What the sessions of one unit have in common, from one ending to the next."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.renew()

    def renew(self) -> None:
        """Take another name, for what begins from now on."""
        self._unit = uuid4().hex

    def check(self, lease: Lease, bind: Engine | Connection) -> None:
        """Raise `UsageError` if the session can't take part; before it connects."""
        if lease.owned:
            self._order.words(lease.name, bind.engine)

    def begin(self, lease: Lease, connection: Connection) -> None:
        """Name the transaction that has just begun, where that is the time for it."""
        if not lease.owned:
            return
        if len(lease.connections) > 1:
            raise UsageError(
                f"database {lease.name!r} has several engines, and such a one can't "
                "take part in a commit in two phases; make it several databases"
            )
        words = self._order.words(lease.name, connection.engine)
        line = lease.lines[-1]
        if words.from_the_start and not line.client_side_read_only:
            words.begin(connection, str(self._branch(lease, 1)))

    def _branch(self, lease: Lease, witness: int) -> Branch:
        order = self._order
        place = order.place(lease.name)
        return Branch(order.fingerprint, self._unit, witness, place)

    def part(self, lease: Lease, mark: Any, witness: Lease) -> Part:
        words = self._order.words(lease.name, lease.connections[0].engine)
        name = str(self._branch(lease, self._order.place(witness.name)))
        begun_as = lease.lines[0].xid
        if words.from_the_start and begun_as != name:
            raise UsageError(
                f"the transaction in database {lease.name!r} was kept open for a "
                "stream, and can't be committed together with one that began later; "
                "stream from a unit of its own: `async with db.transaction()`"
            )
        return Part(lease, words, name, mark)

    def mark(self, session: Session, lease: Lease) -> Any:
        """What tells the transaction later; `None` if it has nothing to store."""
        if not lease.connections or not lease.lines:
            return None
        connection = lease.connections[0]
        return self._order.words(lease.name, connection.engine).mark(connection)


class Part:
    """One session that takes part, and what is done with it: each in its own step."""

    def __init__(self, lease: Lease, words: Words, name: str, mark: Any) -> None:
        self.lease = lease
        self._words = words
        self._name = name
        self._mark = mark
        self._connection = lease.connections[0]
        self._engine = self._connection.engine

    def prepare(self, session: Session) -> None:
        # What `Session.prepare()` does before it asks SQLAlchemy's own transactions.
        session._transaction._prepare_impl()  # type: ignore[union-attr]  # it is open
        self._words.prepare(self._connection, self._name)

    def commit(self, session: Session) -> None:
        self._words.end(self._connection, self._name, commit=True)
        session.commit()

    def roll_back(self, session: Session) -> None:
        self._words.end(self._connection, self._name, commit=False)

    def settle(self, session: Session, *, commit: bool, limit: float) -> bool | None:
        """Try on another connection; say whether it was committed, `None` if unknown"""

        def question() -> bool | None:
            with fresh_connection(self._engine) as connection:
                self._words.open(connection)
                try:
                    self._words.end(connection, self._name, commit=commit)
                except Gone:
                    return self._words.fate(
                        connection, self._name, self._mark, asked=commit
                    )
                return commit

        return ask_within(question, self.lease.is_async, limit)


def split(
    leases: Sequence[Lease], together: Together
) -> Plan[tuple[Sequence[Lease], list[Part]]]:
    """Tell those that have something to store from the others.

    One alone needs no two phases, and comes last of those that are simply committed.
    """
    if not all(lease.owned for lease in leases):
        return leases, []  # a test's own
    marks: list[tuple[Lease, Any]] = []
    alone: list[Lease] = []
    for lease in leases:
        mark = yield Step(partial(together.mark, lease=lease), lease)
        if mark is None:
            alone.append(lease)
        else:
            marks.append((lease, mark))
    if len(marks) < 2:
        return [*alone, *(lease for lease, _ in marks)], []
    witness = marks[0][0]
    return alone, [together.part(lease, mark, witness) for lease, mark in marks]


def commit_together(parts: Sequence[Part], done: list[Lease]) -> Plan[None]:
    """Commit all or nothing; *done* are those that have committed.

    Raises `CommitUnknownError` if it can't be found out in time which of the two it is,
    and `PartialCommitError` if a commit that is decided could not be finished.
    """
    until = time.monotonic() + DECIDED_WITHIN
    for part in parts:
        part.lease.doubts = []  # from now on nobody may interrupt
    yield from _prepare(parts, until)
    yield from _decide(parts, until)
    done.append(parts[0].lease)
    yield from _follow(parts[1:], done)


def _prepare(parts: Sequence[Part], until: float) -> Plan[None]:
    ready: list[Part] = []
    try:
        for part in parts:
            yield Step(part.prepare, part.lease, _left(until, part))
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
                part.lease.doubts = None
        if sure or not isinstance(error, Exception):
            raise
        raise _unknown(parts) from error


def _take_back(ready: Sequence[Part], doubtful: Part | None) -> Plan[bool]:
    """Roll back what is prepared, the witness last; say whether nothing can commit."""
    sure = True
    if doubtful is not None:
        fate = yield from _settle(doubtful, commit=False)
        sure = fate is False or not ready
    for part in reversed(ready):
        witness = part is ready[0]
        if witness and not sure:
            break
        try:
            yield Step(part.roll_back, part.lease, part.lease.patience)
        except Exception as error:
            fate = yield from _settle(part, commit=False)
            if fate is None:
                log.warning(
                    "a prepared transaction of database %r is left to recover()",
                    part.lease.name,
                    exc_info=error,
                )
            sure = fate is False or witness
    return sure


def _decide(parts: Sequence[Part], until: float) -> Plan[None]:
    witness = parts[0]
    lease = witness.lease
    try:
        yield Step(witness.commit, lease, _left(until, witness))
    except Exception as error:
        if not (yield from _settle(witness, commit=True, until=until)):
            raise _unknown(parts) from error
        yield Step(_session.accept, lease)


def _follow(parts: Sequence[Part], done: list[Lease]) -> Plan[None]:
    """Commit what is decided; all that can be, before the first failure is raised."""
    first: Exception | None = None
    lost: dict[bool | None, list[str]] = {None: [], False: []}
    for part in parts:
        lease = part.lease
        try:
            yield Step(part.commit, lease, lease.settings.commit_timeout)
        except Exception as error:
            fate = yield from _settle(part, commit=True)
            if fate is not True:
                first = first or error
                lost[fate].append(lease.name)
                continue
            yield Step(_session.accept, lease)
        done.append(lease)
    if first is not None:
        raise partial_commit(
            [lease.name for lease in done],
            rolled_back=lost[False],
            unknown=lost[None],
            advice="what is prepared will be committed by recover()",
        ) from first


def _settle(
    part: Part, *, commit: bool, until: float | None = None
) -> Plan[bool | None]:
    """End it from elsewhere, again and again, until somebody tells or time is over."""
    lease = part.lease
    lease.discard()
    limit = lease.settings.verify_timeout
    end = time.monotonic() + limit
    until = end if until is None else min(until, end)
    pause = _PAUSE
    fate: bool | None = None
    while fate is None and (left := until - time.monotonic()) > 0:
        once = min(left, limit / 4)
        settle = partial(part.settle, commit=commit, limit=once)
        with suppress(TimeoutError):
            fate = yield Step(settle, lease, once / 2)
        if fate is None:
            pause = min(2 * pause, 1.0)
            yield Pause(pause)
    return fate


def _left(until: float, part: Part) -> float:
    left = max(until - time.monotonic(), _PAUSE)
    limit = part.lease.settings.commit_timeout
    return left if limit is None else min(left, limit)


def _unknown(parts: Sequence[Part]) -> CommitUnknownError:
    names = ", ".join(repr(part.lease.name) for part in parts)
    return CommitUnknownError(
        f"nobody told in time how the commit of {names} went: all of them will be "
        "committed or none, and what is still prepared recover() will settle; look "
        "before trying again"
    )


def partial_commit(
    committed: Sequence[str],
    *,
    rolled_back: Sequence[str] = (),
    unknown: Sequence[str] = (),
    advice: str = "look, before trying again",
) -> PartialCommitError:
    """Say of each database what became of its part."""
    became = {
        "committed": committed,
        "rolled back": rolled_back,
        "unknown": unknown,
    }
    told = "; ".join(
        f"{what}: {', '.join(map(repr, names))}"
        for what, names in became.items()
        if names
    )
    return PartialCommitError(
        f"only a part of this unit is stored ({told}); {advice}",
        committed=tuple(committed),
        rolled_back=tuple(rolled_back),
        unknown=tuple(unknown),
    )
