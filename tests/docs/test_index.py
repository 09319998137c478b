"""docs/index.md lists every page with a line about it, and so does docs/llms.txt."""

from __future__ import annotations

import re

import llms
from support.manual import PAGES, ROOT

DOCS = ROOT / "docs"
INDEX = (DOCS / "index.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"(?m)^- \[.+?\]\(([\w/-]+\.md)\)(.*)$", INDEX)


def test_lists_every_page_once() -> None:
    listed = sorted(target for target, _ in ENTRIES)

    pages = {str(page.relative_to(DOCS)) for page in PAGES if page.parent != ROOT}
    assert listed == sorted(pages - {"index.md"})


def test_describes_every_page_in_one_line() -> None:
    assert [target for target, about in ENTRIES if not about.startswith(": ")] == []


def test_the_index_for_language_models_is_what_the_tool_writes() -> None:
    assert (DOCS / "llms.txt").read_text(encoding="utf-8") == llms.build()
