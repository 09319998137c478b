"""Fixtures of the tests of events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.flavours import Flavour
from support.pgbouncer import pgbouncer, pooled
from support.recording import Recorder, recording

__all__ = ["pgbouncer", "pooled", "recorder"]


@pytest.fixture
def recorder(flavour: Flavour) -> Iterator[Recorder]:
    """Has all events of the database."""
    with recording(flavour.db) as recorder:
        yield recorder
