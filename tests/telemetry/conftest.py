"""Fixtures of the tests of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.exported import Exported
from support.flavours import Flavour
from unitwork.telemetry import instrument


@pytest.fixture
def exported() -> Iterator[Exported]:
    exported = Exported()
    yield exported
    exported.shutdown()


@pytest.fixture
def instrumented(flavour: Flavour, exported: Exported) -> Iterator[Flavour]:
    """The database, whose units are recorded."""
    stop = instrument(flavour.db, span_above=60.0, **exported.providers)
    yield flavour
    stop()
