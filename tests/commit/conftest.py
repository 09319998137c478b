"""Fixtures of the tests of hooks and plans."""

from __future__ import annotations

import pytest

from support.play import Play


@pytest.fixture
def done() -> list[str]:
    """What the hooks of a test have noted."""
    return []


@pytest.fixture
def play() -> Play:
    return Play()
