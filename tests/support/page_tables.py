"""The tables of a page, to be compared with the code."""

from __future__ import annotations

import re

__all__ = ["code_in", "rows"]


def rows(text: str, *header: str) -> list[list[str]]:
    """The cells of the table in *text* whose first columns are called *header*."""
    found = re.search(
        rf"^\| {' [|] '.join(map(re.escape, header))} \|.*\n\|[-:| ]+\|\n((?:\|.*\n)+)",
        text,
        re.MULTILINE,
    )
    assert found, header
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in found[1].splitlines()
    ]


def code_in(cell: str) -> list[str]:
    """What a cell shows as code."""
    return re.findall(r"`([^`]+)`", cell)
