"""What a text does to its transaction, by its words."""

from __future__ import annotations

import pytest

from unitwork._engine.transaction_control import commits


@pytest.mark.parametrize(
    "statement", ["COMMIT", "end transaction", "/* a comment */ commit", "-- one\nEND"]
)
def test_commit_is_recognized_behind_a_comment(statement: str) -> None:
    assert commits("sqlite", statement)


@pytest.mark.parametrize("statement", ["", "ROLLBACK", "-- commit", "SELECT 1 -- end"])
def test_other_statements_do_not_commit(statement: str) -> None:
    assert not commits("sqlite", statement)
