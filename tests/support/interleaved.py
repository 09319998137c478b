"""Random programs of reads, locks, writes and releases, against a model of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from support.conflicts import Conflict, write_from_outside
from support.flavours import Flavour
from support.models import Item, add_item, names
from support.releasing import checked_out, outside
from unitwork import UsageError

STEPS = [
    *("read", "read", "others write", "outside", "outside", "outside"),
    *("write", "lock", "advisory lock", "set", "savepoint", "end savepoint"),
    *("undo savepoint", "open cursor", "commit", "roll back", "fail once"),
]


@dataclass
class Model:
    """What a program must find, at READ COMMITTED."""

    stored: list[str] = field(default_factory=list)
    """The names that others can see."""
    pending: list[list[str]] = field(default_factory=lambda: [[]])
    """Those that are written and not committed: of each savepoint."""
    is_bound: bool = False
    """Whether the transaction has done what must not be lost with it."""
    is_unclear: bool = False
    """Whether a savepoint has undone that: then both is right."""

    is_connected: bool = False
    """Whether the unit has a connection now."""
    has_begun: bool = False
    """Whether its next statement is part of a transaction, in each release mode."""

    def begin(self) -> None:
        self.pending = [[]]
        self.has_begun = False
        self.release()

    def release(self) -> None:
        self.is_bound = self.is_unclear = self.is_connected = False

    @property
    def seen(self) -> set[str]:
        return {*self.stored, *(name for names in self.pending for name in names)}


class Program:
    """One random program. It runs in one unit, by `db.run()`.

    With *releases* its reads need a connection only while they are executed.
    """

    def __init__(
        self, flavour: Flavour, seed: int, length: int = 12, *, releases: bool = False
    ) -> None:
        random = Random(seed)  # nothing is secret here
        self.flavour = flavour
        self._releases = releases
        self.steps = random.choices(STEPS, k=length)
        self.model = Model()
        self.released = self.refused = 0
        self._has_failed = False
        self._count = 0
        self._savepoints: list[Any] = []

    async def run(self) -> None:
        db = self.flavour.db
        await db.run(self._attempt, attempts=2)
        self.model.stored += [x for level in self.model.pending for x in level]

    async def _attempt(self, session: Any) -> None:
        self.model.begin()
        self._savepoints.clear()
        for step in self.steps:
            await getattr(self, f"_{step.replace(' ', '_')}")(session)
            assert checked_out(self.flavour) == self.model.is_connected, step
        while self._savepoints:
            await self._end_savepoint(session)

    async def _do(self, session: Any, body: Any, *, only_reads: bool = False) -> Any:
        if not only_reads or not self._releases:
            self.model.has_begun = True
        self.model.is_connected |= self.model.has_begun
        return await self.flavour.do(session, body)

    async def _bind(self, session: Any, sql: str) -> None:
        await self._do(session, lambda s: s.execute(text(sql)))
        self.model.is_bound = True

    def _next(self) -> str:
        self._count += 1
        return f"n{self._count}"

    async def _read(self, session: Any) -> None:
        seen = await self._do(session, names, only_reads=True)
        assert set(seen) == self.model.seen

    async def _others_write(self, session: Any) -> None:
        name = self._next()
        sql = f"INSERT INTO item (name) VALUES ('{name}')"
        write_from_outside(self.flavour.url, sql)
        self.model.stored.append(name)

    async def _write(self, session: Any) -> None:
        name = self._next()
        await self._do(session, lambda s: add_item(s, name) and None)
        self.model.pending[-1].append(name)
        self.model.is_bound = True

    async def _lock(self, session: Any) -> None:
        query = select(Item.id).with_for_update()
        await self._do(session, lambda s: s.execute(query).all())
        self.model.is_bound = True

    async def _advisory_lock(self, session: Any) -> None:
        await self._bind(session, "SELECT pg_advisory_xact_lock_shared(7)")

    async def _set(self, session: Any) -> None:
        await self._bind(session, "SET LOCAL lock_timeout = '9s'")

    async def _savepoint(self, session: Any) -> None:
        savepoint = await self.flavour.do(session, lambda s: s.begin_nested())
        self._savepoints.append((savepoint, self.model.is_bound))
        self.model.has_begun = True
        self.model.pending.append([])

    async def _end_savepoint(self, session: Any) -> None:
        if self._savepoints:
            savepoint, _ = self._savepoints.pop()
            await self.flavour.do(session, lambda s: savepoint.commit())
            inner = self.model.pending.pop()
            self.model.pending[-1] += inner

    async def _undo_savepoint(self, session: Any) -> None:
        if self._savepoints:
            savepoint, was_bound = self._savepoints.pop()
            await self.flavour.do(session, lambda s: savepoint.rollback())
            self.model.pending.pop()
            self.model.is_unclear |= self.model.is_bound and not was_bound

    async def _open_cursor(self, session: Any) -> None:
        def read_all(session: Session) -> None:
            query = text("SELECT generate_series(1, 100)")
            session.execute(query, execution_options={"yield_per": 10}).close()

        await self._do(session, read_all)
        self.model.is_bound = True  # what a cursor has done is not known

    async def _commit(self, session: Any) -> None:
        if not self._savepoints and self._has_failed:  # else it can't be retried
            await self._do(session, lambda s: s.commit())
            self.model.stored += self.model.pending[0]
            self.model.begin()

    async def _roll_back(self, session: Any) -> None:
        await self._do(session, lambda s: s.rollback())
        self._savepoints.clear()
        self.model.begin()

    async def _fail_once(self, session: Any) -> None:
        if not self._has_failed:
            self._has_failed = True
            raise Conflict

    async def _outside(self, session: Any) -> None:
        has_savepoint = bool(self._savepoints) and self.model.is_connected
        must_stay = has_savepoint or self.model.is_bound
        try:
            async with outside():
                assert checked_out(self.flavour) == 0
                assert not must_stay or self.model.is_unclear
                assert not has_savepoint
        except UsageError:
            assert must_stay
            assert checked_out(self.flavour) == 1
            self.refused += 1
        else:
            self.released += 1
            self.model.release()
