"""`python -m unitwork.demo` shows a success that is lost, and how it is not."""

from __future__ import annotations

import pytest

from support.manual import ROOT
from unitwork import demo


def test_get_db_answers_201_and_stores_nothing() -> None:
    result = demo.try_out(demo.app_with_get_db)

    assert (result.status, result.body) == ("201 Created", "stored item 1")
    assert result.logged == "IntegrityError, after the response"
    assert result.rows == "0"


def test_unitwork_answers_409_and_stores_nothing() -> None:
    result = demo.try_out(demo.app_with_unitwork)

    assert (result.status, result.body) == ("409 Conflict", "no such owner")
    assert (result.logged, result.rows) == ("-", "0")


def test_prints_what_the_readme_shows(capsys: pytest.CaptureFixture[str]) -> None:
    demo.main()

    printed = capsys.readouterr().out
    assert printed.count("\n") > 4
    assert printed in (ROOT / "README.md").read_text(encoding="utf-8")
