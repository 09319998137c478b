"""What a text does to its transaction, by its words."""

from __future__ import annotations

import pytest

from unitwork._sql.transaction_control import commits, may_commit


@pytest.mark.parametrize(
    "statement", ["COMMIT", "end transaction", "/* a comment */ commit", "-- one\nEND"]
)
def test_commit_is_recognized_behind_a_comment(statement: str) -> None:
    assert commits("sqlite", statement)


@pytest.mark.parametrize("statement", ["", "ROLLBACK", "-- commit", "SELECT 1 -- end"])
def test_other_statements_do_not_commit(statement: str) -> None:
    assert not commits("sqlite", statement)


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE", "SET STATEMENT a=1 FOR SELECT 1; COMMIT", "SELECT 1; DROP TABLE"],
)
def test_any_of_several_statements_may_commit(statement: str) -> None:
    assert may_commit("mariadb", statement)


def test_a_setting_for_one_statement_does_not_commit() -> None:
    assert not may_commit("mariadb", "SET STATEMENT max_statement_time=1 FOR DROP")
