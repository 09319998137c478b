"""The root conftest.py runs the ```python blocks of the pages; here is the rest."""

import re
from collections.abc import Iterator
from pathlib import Path

from sybil import Document
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MOST_SHOWN = 3
FENCE = RawFencedCodeBlockLexer(re.compile(r"(?P<info>[^\n]*)\n"))


def blocks(language: str) -> Iterator[str]:
    """Yield where the blocks are whose language matches the pattern *language*."""
    for page in PAGES:
        document = Document(page.read_text(encoding="utf-8"), str(page))
        for fence in FENCE(document):
            info = re.sub(
                r"^\{(code|code-block|sourcecode)\}", "", fence.lexemes["info"]
            )
            if re.fullmatch(language, info.strip()):
                line = document.text.count("\n", 0, fence.start) + 1
                yield f"{page.relative_to(ROOT)}:{line}"


def test_runs_some_code() -> None:
    assert list(blocks("python"))


def test_shows_little_code_that_is_not_run() -> None:
    shown = list(blocks("py"))

    assert len(shown) <= MOST_SHOWN, shown


def test_has_no_other_name_for_python() -> None:
    assert not list(blocks(r"(?i:py.*|ipython.*)(?<!^python)(?<!^py)"))


def test_puts_no_page_where_its_code_is_not_looked_for() -> None:
    assert all(len(page.relative_to(ROOT).parts) <= 3 for page in PAGES)
