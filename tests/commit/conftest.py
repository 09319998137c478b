"""Fixtures of the tests of hooks and plans."""

from __future__ import annotations

from typing import Any

import pytest

from support.play import Play
from support.played_units import PlayDatabase
from unitwork import UnitOfWork
from unitwork._unit.owner import UnitOwner
from unitwork._unit.unit import Unit
from unitwork._unit.unit_of_work import facade_of


@pytest.fixture
def done() -> list[str]:
    """What the hooks of a test have noted."""
    return []


@pytest.fixture
def play() -> Play:
    return Play()


@pytest.fixture
def unit(play: Play) -> Unit:
    """A unit with one open session."""
    database: Any = PlayDatabase(play)
    unit = Unit({"db": database}, UnitOwner())
    unit.session_of(database)
    return unit


@pytest.fixture
def facade(play: Play, unit: Unit) -> UnitOfWork:
    """What the application sees of it; with a hook of each kind."""
    facade = facade_of(unit)
    for kind in ("before_commit", "on_commit", "on_rollback"):
        getattr(facade, kind)(play.steps.append, kind)
    return facade
