"""The tests that the page on testing shows pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from support.manual import Page
from support.page_tables import code_in, rows
from support.pages import postgresql, run_tests
from unitwork.testing import CommitFault


@pytest.fixture(autouse=True)
def files(page: Page, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's modules import each other; pytest finds their files."""
    for name in "main", "factory":
        monkeypatch.setitem(sys.modules, name, page.module)
    page.run()
    page.write_files()
    yield
    page.module.db.dispose()


def test_its_tests_pass_on_sqlite() -> None:
    assert "11 passed" in run_tests(DATABASE_URL="sqlite:///test.db")


def test_its_tests_pass_on_postgresql() -> None:
    with postgresql("psycopg") as url:
        assert "11 passed" in run_tests(DATABASE_URL=url)


def test_commits_fail_on_cue(page: Page) -> None:
    page.module.Base.metadata.create_all(page.module.db.engine)

    page.module.test_a_lamp_is_never_lost_without_a_word()


def test_lists_each_fault(page: Page) -> None:
    listed = rows(page.text, "Fault", "The database")

    members = [f"CommitFault.{fault.name}" for fault in CommitFault]
    assert sorted(name for row in listed[1:3] for name in code_in(row[0])) == sorted(
        members
    )
