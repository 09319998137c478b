"""The tests that the page on test tools shows pass, in both modes."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.manual import ROOT, Page
from support.page_tables import code_in, rows
from support.pages import run_tests
from unitwork.testing import CommitFault


@pytest.fixture(autouse=True)
def files(page: Page) -> None:
    """The files of the page, and the application of the page on testing."""
    Page(ROOT / "docs" / "testing.md", page.module).write_files(
        "main.py", "conftest.py"
    )
    page.write_files()


def test_its_tests_pass_on_sqlite() -> None:
    url = "sqlite+aiosqlite:///test.db"

    output = run_tests("--unitwork-mode=both", DATABASE_URL=url)

    assert "9 passed" in output
    assert "no difference" in output
    assert not Path("test.db").exists()


def test_lists_each_fault(page: Page) -> None:
    listed = rows(page.text, "Fault", "The database")

    members = [f"CommitFault.{fault.name}" for fault in CommitFault]
    assert sorted(name for row in listed[1:3] for name in code_in(row[0])) == sorted(
        members
    )
