"""A session without a database, which waits until a test says how each call goes."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from unitwork import DatabaseSettings
from unitwork._observing.registry import Observers
from unitwork._session.fence import fenced
from unitwork._session.opening import Opening
from unitwork._session.unit_session import UnitSession
from unitwork._unit.unit import Unit

OK, FAIL, STORED, LOST = ("ok", "fail", "stored", "lost")
"""How a step goes; COMMIT may be stored, or not, and its connection lost."""


class FakeSession(Session):
    @property
    def world(self) -> Any:
        return self.info["world"]

    def flush(self, objects: Any = None) -> None:
        if await_only(self.world.step("flush")) != OK:
            raise LookupError("the flush")

    def commit(self) -> None:
        how, world = await_only(self.world.step("commit")), self.world
        if how in (OK, STORED):
            world.rows |= world.written
        if how == FAIL:
            raise LookupError("COMMIT")
        if how != OK:
            raise ConnectionError("lost")
        world.written.clear()
        super().commit()

    def rollback(self) -> None:
        if await_only(self.world.step("rollback")) != OK:
            raise OSError("lost")
        self.world.written.clear()
        super().rollback()

    def _close_impl(self, invalidate: bool, is_reset: bool = False) -> None:
        if invalidate:  # also by `Session.invalidate(session)`
            self.world.written.clear()
        super()._close_impl(invalidate, is_reset)


class FakeUnitSession(UnitSession):
    __slots__ = ("world",)
    world: Any

    def abort_connections(self) -> None:
        self.world.go(STORED)


class FakeDatabase:
    name = "fake"

    is_async = True

    def __init__(self, world: Any) -> None:
        self.world = world
        self.observers = Observers()  # read where a test has left others observed

    def open_session(self, owner: Unit) -> UnitSession:
        session = AsyncSession(
            sync_session_class=fenced(FakeSession),
            close_resets_only=False,
            info={"world": self.world},
        )
        unit_session = FakeUnitSession(
            session, owner, self.name, Opening(DatabaseSettings())
        )
        unit_session.world = self.world
        return unit_session

    @property
    def open_units(self) -> Any:
        return self

    def closed(self, owner: Unit) -> None:
        pass
