"""Whatever comes before it, a connection is released only if nothing would be lost.

UNITWORK_PROGRAMS=100000 makes it a long test.
"""

from __future__ import annotations

import os

import pytest

from support.databases import check_nothing_is_left, empty_tables
from support.flavours import Flavour, Observer, only
from support.interleaved import Program
from support.releasing import releasing
from unitwork.testing import no_waits

pytestmark = pytest.mark.anyio

PROGRAMS = int(os.environ.get("UNITWORK_PROGRAMS", "60"))
FIRST_SEED = int(os.environ.get("UNITWORK_SEED", "0"))


@only("asyncpg", "psycopg-async")
@pytest.mark.parametrize("releases", [False, True], ids=["transaction", "statement"])
async def test_random_programs_find_what_read_committed_promises(
    flavour: Flavour, observer: Observer, releases: bool
) -> None:
    under_test = releasing(flavour) if releases else flavour
    released = refused = 0
    for seed in range(FIRST_SEED, FIRST_SEED + PROGRAMS):
        program = Program(under_test, seed, releases=releases)
        with no_waits():
            await _run(program, seed)
        assert set(observer.names()) == set(program.model.stored), f"seed {seed}"
        released, refused = released + program.released, refused + program.refused
        empty_tables(flavour.url)
    await check_nothing_is_left(under_test)
    if releases:
        await under_test.dispose()

    assert released > PROGRAMS / 4
    assert refused > PROGRAMS / 4


async def _run(program: Program, seed: int) -> None:
    try:
        await program.run()
    except BaseException as error:
        error.add_note(f"seed {seed}: {', '.join(program.steps)}")
        raise
