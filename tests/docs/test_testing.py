"""The tests that the page on testing shows pass, in both modes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.manual import Page
from support.pages import run_tests

FILES = ("--ignore", "several")


@pytest.fixture(autouse=True)
def files(page: Page) -> None:
    page.write_files()


def test_its_tests_pass_on_sqlite() -> None:
    url = "sqlite+aiosqlite:///test.db"

    assert "5 passed" in run_tests(*FILES, DATABASE_URL=url)
    assert not Path("test.db").exists()


def test_its_tests_pass_in_both_modes_in_workers(page: Page) -> None:
    """As CI runs them; those with a mark run once."""
    [settings] = [x for x in page.text.split("```") if x.startswith("ini")]
    Path("pytest.ini").write_text(settings.removeprefix("ini"))
    server = os.environ["UNITWORK_TEST_POSTGRESQL"]
    url = server.replace("postgresql:", "postgresql+asyncpg:") + "_does_not_exist"
    options = ["-n", "2", "--unitwork-mode=both", "--unitwork-keep"]

    output = run_tests(*FILES, *options, DATABASE_URL=url)

    assert "9 passed" in output
    assert "no difference" in output


def test_those_of_several_databases_pass() -> None:
    assert "1 passed" in run_tests("several")
