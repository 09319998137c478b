"""A sandbox around each test that asks for one, entered in both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.flavours import Flavour
from support.sandboxes import WAYS, entered
from unitwork.testing import Sandbox


@pytest.fixture(params=WAYS)
async def box(
    request: pytest.FixtureRequest, flavour: Flavour
) -> AsyncIterator[Sandbox]:
    async with entered(request.param, flavour.db, timeout=5.0) as box:
        yield box
