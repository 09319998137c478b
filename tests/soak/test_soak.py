"""P1 to P5 and P7, by random programs: no client is told a lie, nothing hangs or leaks.

A violation is repeated by `make soak SEED=… PROGRAM=…`, with the seed of this file.
"""

from __future__ import annotations

import pytest

from soak.__main__ import database
from soak.generate import Generator, left_out
from soak.ledger import Ledger
from soak.run import Run

SEED = 2026
PROGRAMS = 400
OBSERVED = 200


@pytest.mark.filterwarnings(  # the programs are odd
    "ignore::sqlalchemy.exc.SAWarning",
    "ignore:<psycopg:ResourceWarning",
    "ignore:unclosed database:ResourceWarning",  # its opening was cancelled
)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "psycopg-async", "aiosqlite"])
def test_random_programs_find_no_lie(driver: str) -> None:
    generator = Generator(SEED, driver, left_out(driver, (), ()))
    with database(driver) as url:
        report = Run(generator, url).go(range(PROGRAMS))

    wrong = [(each.what, each.story, str(each.program)) for each in report.violations]
    assert wrong == []
    assert report.reported["success"] > PROGRAMS / 5
    assert report.rows > PROGRAMS / 5


@pytest.mark.filterwarnings(
    "ignore::sqlalchemy.exc.SAWarning",
    "ignore:<psycopg:ResourceWarning",
    "ignore:unclosed database:ResourceWarning",  # its opening was cancelled
)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "aiosqlite"])
def test_the_events_and_the_metrics_of_random_programs_add_up(driver: str) -> None:
    generator = Generator(SEED + 1, driver, left_out(driver, (), ()))
    ledger = Ledger()
    with database(driver) as url, ledger.counting():
        Run(generator, url, ledger=ledger).go(range(OBSERVED))

    wrong = "\n".join(ledger.wrong())
    assert wrong == ""
    assert ledger.outcomes["COMMITTED"] > OBSERVED / 5
    assert ledger.outcomes["ROLLED_BACK"] > OBSERVED / 5
