"""The text of a statement as the inspector shows it has no values in it."""

from __future__ import annotations

import pytest

from unitwork._inspector.statement_text import shown

HIDDEN = [
    "SELECT 'secret'",
    "SELECT 'it''s', 'secret'",
    "SELECT E'a\\'b secret'",
    "SELECT $tag$ secret $tag$",
    "SELECT 1 -- don't\n WHERE a = 'secret'",
    "SELECT /* a 'secret' */ 1",
    "SELECT 'C:\\', 'secret'",
    "SELECT 'secret",
]


@pytest.mark.parametrize("statement", HIDDEN)
def test_hides_each_string(statement: str) -> None:
    assert "secret" not in shown(statement)


@pytest.mark.parametrize("value", ['"secret"', "'a\\'b secret'", "'1' # 'secret'"])
def test_hides_the_strings_of_mysql(value: str) -> None:
    assert "secret" not in shown(f"SELECT {value}", "mysql")


@pytest.mark.parametrize("value", ['"secret"', "'C:\\', 'secret'", '"a""secret"'])
def test_hides_the_strings_of_sqlite(value: str) -> None:
    assert "secret" not in shown(f"SELECT {value}", "sqlite")


@pytest.mark.parametrize(
    "number", ["1_000", ".5", "7.", "1e1_0", "0b1", "0o17", "0xf_f", "-3.25e-2"]
)
def test_hides_numbers_in_each_form(number: str) -> None:
    assert shown(f"SELECT {number}").strip("-SELCT ") == "?"


def test_hides_numbers_and_leaves_names_and_placeholders() -> None:
    statement = 'SELECT t1.a2, "order" FROM t1 WHERE b = $1 AND c = 42.5 AND d = 0xff'

    expected = 'SELECT t1.a2, "order" FROM t1 WHERE b = $1 AND c = ? AND d = ?'
    assert shown(statement) == expected


def test_cuts_a_long_one() -> None:
    assert len(shown("SELECT a" + ", a" * 5_000)) <= 1_001
