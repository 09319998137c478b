"""P4, P5, P7 under random faults: no client is told a lie, nothing hangs or leaks.

`UNITWORK_FAULT_SEED=<seed>` makes the faults of a failed run happen again.
"""

from __future__ import annotations

import os
import random

import pytest
from sqlalchemy import make_url

from faults.plan import Plan, for_backend
from faults.run import Run
from support.flavours import SERVERS, Flavour, only

pytestmark = pytest.mark.anyio

SEED = int(os.environ.get("UNITWORK_FAULT_SEED") or random.randrange(10**6))


@only(*SERVERS)
async def test_nobody_is_lied_to_whatever_breaks(flavour: Flavour) -> None:
    print(f"UNITWORK_FAULT_SEED={SEED}")  # shown when it fails
    kinds = for_backend(make_url(flavour.url).get_backend_name())
    run = Run(flavour.name, flavour.url, Plan(SEED, 300, 0.3, kinds))

    report = await run.go()
    print(report)

    assert report.wrong == []
    assert report.requests == 300
    assert report.faults.total() > 20


@only(*SERVERS)
async def test_the_usual_pattern_is_caught_lying(flavour: Flavour) -> None:
    """So that one knows what it means when nothing is found."""
    plan = Plan(SEED, 40, 1.0, ("COMMIT request lost",))
    run = Run(flavour.name, flavour.url, plan, plain=True)

    report = await run.go()

    assert len(report.lies) > 20
