"""Every page has its tests in tests/docs/, and its code is one that runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.manual import PAGES, ROOT, companion, read

MOST_SHOWN = 3


def blocks(language: str) -> Iterator[str]:
    """Yield where the blocks are whose language matches the pattern *language*."""
    for page in PAGES:
        for block in read(page.read_text(encoding="utf-8")).blocks:
            if re.fullmatch(language, block.language):
                yield f"{page.relative_to(ROOT)}:{block.line}"


WITH_CODE = sorted({ROOT / place.rpartition(":")[0] for place in blocks("python")})


def test_runs_some_code() -> None:
    assert ROOT / "README.md" in WITH_CODE


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_each_page_with_code_has_tests_that_run_it(page: Path) -> None:
    tests = companion(page).read_text(encoding="utf-8")

    assert re.search(r"def \w+\([^)]*\bpage: Page", tests)


def test_shows_little_code_that_is_not_run() -> None:
    shown = list(blocks("py"))

    assert len(shown) <= MOST_SHOWN, shown


def test_has_no_other_name_for_python() -> None:
    assert not list(blocks(r"(?i:py.*|ipython.*)(?<!^python)(?<!^py)"))
