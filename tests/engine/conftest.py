"""Fixtures of the tests of the guard."""

from __future__ import annotations

import pytest

from support.guarding import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("unitwork._engine.pool_events.time", clock)
    return clock
