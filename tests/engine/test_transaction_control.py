"""What a text does to its transaction, by its words."""

from __future__ import annotations

import pytest

from unitwork._sql.transaction_control import (
    begins_another,
    commits,
    may_commit,
    may_replace,
    may_store_a_part,
)


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


@pytest.mark.parametrize(
    "statement", ["begin", "-- why\nBEGIN WORK", "START TRANSACTION"]
)
def test_mariadb_begins_another_transaction(statement: str) -> None:
    assert begins_another("mariadb", statement)


@pytest.mark.parametrize("statement", ["BEGIN NOT ATOMIC SELECT 1; END", "START SLAVE"])
def test_mariadb_begins_none(statement: str) -> None:
    assert not begins_another("mariadb", statement)


def test_other_databases_begin_none_inside_of_one() -> None:
    assert not begins_another("postgresql", "BEGIN")


@pytest.mark.parametrize(
    "statement",
    [
        *("CALL p()", "begin not atomic end", "LOCK TABLES t READ", "/*!EXECUTE*/ s"),
        *("SELECT 1; CALL p()", "SET STATEMENT a=1 FOR CALL p()", "ROLLBACK"),
    ],
)
def test_a_transaction_of_mysql_may_be_another_one_afterwards(statement: str) -> None:
    assert may_replace("mariadb", statement)
    assert not may_replace("postgresql", statement)


@pytest.mark.parametrize(
    "statement",
    [
        *("SHOW TABLES", "(SELECT 1)", "SET a=1", "# CALL\nDO 1", "DO 'a;b';"),
        *("ROLLBACK TO SAVEPOINT a", "rollback work to a", "RELEASE SAVEPOINT a"),
    ],
)
def test_most_statements_begin_no_other_one(statement: str) -> None:
    assert not may_replace("mysql", statement)


@pytest.mark.parametrize(
    ("dialect", "statement"),
    [
        ("postgresql", "CALL store()"),
        ("postgresql", "-- why\nDO $$ BEGIN COMMIT; END $$"),
        ("postgresql", "INSERT INTO a VALUES (1); COMMIT; SELECT 1"),
        ("postgresql", "CREATE INDEX CONCURRENTLY a ON b (c)"),
        ("mariadb", "CALL store()"),
        ("mariadb", "INSERT INTO a VALUES (1); SELECT 1"),
        ("mariadb", "BEGIN NOT ATOMIC INSERT INTO a VALUES (1); END"),
    ],
)
def test_a_procedure_may_store_a_part(dialect: str, statement: str) -> None:
    assert may_store_a_part(dialect, statement)


@pytest.mark.parametrize("dialect", ["postgresql", "mariadb"])
@pytest.mark.parametrize(
    "statement", ["INSERT INTO a VALUES ('call; do')", "SELECT 1;"]
)
def test_one_statement_stores_all_or_nothing(dialect: str, statement: str) -> None:
    assert not may_store_a_part(dialect, statement)
