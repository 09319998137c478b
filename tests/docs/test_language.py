"""The manual and the source are in plain, modern English (CONTRIBUTING.md)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.manual import PAGES, ROOT

MOTTO = "No client is ever told a lie about its transaction."
DIALECT = re.compile(
    r"\b(told|nobody|whoever|somebody|heed(s|ed)?|lease|for ever|becomes? of|became of|"
    r"hears? of)\b",
    re.IGNORECASE,
)
ACCOUNT = '"nobody"'
SOURCES = [
    path
    for folder in ("benchmarks", "examples", "src", "tools")
    for path in (ROOT / folder).rglob("*.py")
]


@pytest.mark.parametrize(
    "path", [*PAGES, *sorted(SOURCES)], ids=lambda path: str(path.relative_to(ROOT))
)
def test_speaks_no_dialect(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace(MOTTO, "").replace(ACCOUNT, "")

    assert [found[0] for found in DIALECT.finditer(text)] == []
