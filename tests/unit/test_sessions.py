"""The sessions of a unit, when its threads and its end come at the same moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from unitwork import Database, SessionEndedError
from unitwork._unit.database_base import core_of
from unitwork._unit.owner import UnitOwner
from unitwork._unit.unit import Unit
from unitwork.testing import check_idle


def test_no_session_opens_in_a_unit_that_is_closed_meanwhile(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/test.db")
    units: list[Unit] = []

    def late() -> Engine:
        for unit in units:
            unit.close()
        return engine

    db = Database(late)
    core = core_of(db)
    unit = Unit({"db": core}, UnitOwner())
    units.append(unit)

    with pytest.raises(SessionEndedError):
        unit.session_of(core)

    check_idle(db)
    engine.dispose()


def test_what_reads_the_sessions_is_not_disturbed_by_one_that_is_opened(
    tmp_path: Path,
) -> None:
    first, second = (
        Database(f"sqlite:///{tmp_path}/{name}.db", name=name) for name in "ab"
    )
    databases = {"a": core_of(first), "b": core_of(second)}
    unit = Unit(databases, UnitOwner())
    unit.session_of(databases["a"])

    reading = iter(unit.sessions)
    next(reading)
    unit.session_of(databases["b"])

    assert list(reading) == []
    unit.close()
    check_idle(first, second)
    for database in (first, second):
        database.dispose()
