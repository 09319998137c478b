"""The tables of the benchmarks are whole."""

from __future__ import annotations

import re
from pathlib import Path

from support.manual import page_of

TEXT = page_of(Path(__file__)).read_text(encoding="utf-8")


def test_each_section_has_a_table() -> None:
    _, *sections = re.split(r"(?m)^## ", TEXT)

    assert all(re.search(r"(?m)^\|[-:| ]+\|$", section) for section in sections)
