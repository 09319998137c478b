"""The figures on the page about benchmarks are those of the tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.manual import ROOT, page_of
from support.page_tables import rows

TEXT = page_of(Path(__file__)).read_text(encoding="utf-8")
TABLES = (ROOT / "docs" / "benchmarks" / "tables.md").read_text(encoding="utf-8")
CPU = TABLES.partition("## CPU for each request, side by side")[2]


@pytest.mark.parametrize("shown", rows(TEXT, "Endpoint", "one read, asyncpg"))
def test_the_ratios_are_those_of_the_tables(shown: list[str]) -> None:
    name, *ratios = shown
    found = [
        cell.partition(" ")[0]
        for driver in ("asyncpg", "psycopg")
        for row in rows(CPU.partition(f"**{driver}**")[2], "CPU against the limit")
        if row[0] == name
        for cell in row[2:4]
    ]

    assert ratios == found


def test_the_cost_without_a_database_is_that_of_the_tables() -> None:
    [bar] = [row for row in rows(TABLES, "Bar", "Found") if "no database" in row[0]]

    assert f"costs {bar[1]} more" in TEXT
