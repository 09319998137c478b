"""What errors mean: every code of the table, and where each driver has it."""

from __future__ import annotations

from typing import Any

import asyncmy.errors
import asyncpg
import psycopg
import pymysql.err
import pytest

from support.driver_errors import (
    driver_error,
    postgresql,
    sqlite,
    wrapped,
)
from unitwork import Kind, classify
from unitwork._classify.error_codes import CODES


def standard(code: str) -> Exception:
    return driver_error("a_new_driver", "no", sqlstate=code)


MAKE: dict[str | None, Any] = {
    "postgresql": postgresql,
    "mysql": pymysql.err.OperationalError,
    "sqlite": sqlite,
    None: standard,
}
LINE = "08000 08001 08003 08004 08006"
TABLE: list[tuple[str | None, Kind, str]] = [
    ("postgresql", Kind.RETRY, "40001 40P01 OC000 OC001"),
    ("postgresql", Kind.RETRY_WITH_CARE, "55P03"),
    ("postgresql", Kind.UNKNOWN, "40003 08007"),
    ("postgresql", Kind.RECONNECT, f"{LINE} 25P03 57P01 57P02 57P03 57P05"),
    ("postgresql", Kind.TIMEOUT, "57014 25P04"),
    ("postgresql", Kind.PRIMARY, "25006"),
    ("postgresql", Kind.UNAVAILABLE, "53000 53100 53200 53300 53400"),
    ("postgresql", Kind.DOOMED, "40000 25P02"),
    ("postgresql", Kind.NEVER, "40002 57P04 26000 42P05 3D000 28000 28P01 23505 23P01"),
    ("postgresql", Kind.NEVER, "22012 42601 P0001 0A000 XX000 08P01"),
    ("mysql", Kind.RETRY, "1213 1020 3101 1614 8002 8005 8022 8028 9007"),
    ("mysql", Kind.RETRY_WITH_CARE, "1205 3572"),
    ("mysql", Kind.RECONNECT, "1047 1053 1927 2006 2013 2014 2045 2055 4031"),
    ("mysql", Kind.RECONNECT, "0 2002 2003 2005"),
    ("mysql", Kind.UNAVAILABLE, "1040 1203 1206 1226"),
    ("mysql", Kind.PRIMARY, "1290 1792 1836"),
    ("mysql", Kind.TIMEOUT, "1317 1969 3024"),
    ("mysql", Kind.DOOMED, "1180"),
    ("mysql", Kind.NEVER, "1062 1048 1451 1452 3819 1044 1045 1049 1064 1305"),
    ("sqlite", Kind.RETRY, "261 517"),
    ("sqlite", Kind.RETRY_WITH_CARE, "5 773 6 262"),
    ("sqlite", Kind.TIMEOUT, "9"),
    ("sqlite", Kind.DOOMED, "7 10 266 516"),
    ("sqlite", Kind.UNAVAILABLE, "13"),
    ("sqlite", Kind.NEVER, "8 1032 4 19 2067 1 11 26"),
    ("sqlite", Kind.RECONNECT, "14 526"),
    (None, Kind.RETRY, "40001"),
    (None, Kind.RECONNECT, LINE),
    (None, Kind.UNKNOWN, "40003 08007"),
    (None, Kind.NEVER, "23505"),
]
SQLSTATES = {"40001", "08007", *LINE.split()}  # which look like numbers


def as_found(family: str | None, code: str) -> str | int:
    numbers = family in ("mysql", "sqlite") and code not in SQLSTATES
    return int(code) if numbers and code.lstrip("-").isdigit() else code


ROWS = [
    (family, as_found(family, code), kind)
    for family, kind, codes in TABLE
    for code in codes.split()
]


@pytest.mark.parametrize(("family", "code", "kind"), ROWS)
def test_knows_the_code(family: str | None, code: str | int, kind: Kind) -> None:
    found = classify(wrapped(MAKE[family](code)))

    assert (found.kind, found.family, found.code) == (kind, family, code)


def test_checks_every_row_that_there_is() -> None:
    there = {(family, code) for family, table in CODES.items() for code in table}

    assert there <= {(family, code) for family, code, _ in ROWS}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (psycopg.errors.SerializationFailure("no"), "40001"),
        (asyncpg.SerializationError("no"), "40001"),
        (driver_error("psycopg2.errors", "no", pgcode="40001"), "40001"),
        (driver_error("pg8000.exceptions", {"C": "40001", "V": "ERROR"}), "40001"),
        (pymysql.err.OperationalError(1213, "no"), 1213),
        (pymysql.err.InternalError(pymysql.err.OperationalError(1213, "no")), 1213),
        (asyncmy.errors.OperationalError(1213, "no"), 1213),
        (driver_error("MySQLdb", 1213, "no"), 1213),
        (driver_error("mariadb", "no", errno=1213), 1213),
        (driver_error("mysql.connector.errors", "no", errno=1213), 1213),
        (sqlite(517), 517),
    ],
)
@pytest.mark.parametrize("wrap", [wrapped, lambda error: error])
def test_finds_the_code_where_the_driver_has_it(
    error: Exception, code: str | int, wrap: Any
) -> None:
    found = classify(wrap(error))

    assert (found.kind, found.code) == (Kind.RETRY, code)


@pytest.mark.parametrize(
    ("text", "code"), [("database is locked", 5), ("disk I/O error", 10), ("no", None)]
)
def test_reads_the_message_of_sqlite_if_the_code_was_lost(
    text: str, code: int | None
) -> None:
    assert classify(driver_error("sqlite3", text)).code == code


NO_QUORUM = "wsrep: Not connected to Primary Component"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (postgresql("40001", "canceling due to conflict with recovery"), Kind.PRIMARY),
        (postgresql("0A000", "cached plan must not change result type"), Kind.RETRY),
        (postgresql("XX000", "cache lookup failed for type 4711"), Kind.RETRY),
        (postgresql("08P01", "query_wait_timeout", "FATAL"), Kind.UNAVAILABLE),
        (postgresql("08P01", "server login failed", "FATAL"), Kind.RECONNECT),
        (postgresql("XX000", "out of luck", "PANIC"), Kind.RECONNECT),
        (psycopg.OperationalError("FATAL:  sorry, too many clients already"), None),
        (pymysql.err.OperationalError(1305, "SAVEPOINT s does not exist"), Kind.DOOMED),
        (pymysql.err.OperationalError(1305, "FUNCTION f does not exist"), Kind.NEVER),
        (pymysql.err.OperationalError(1180, NO_QUORUM), Kind.UNKNOWN),
    ],
)
def test_reads_the_message_where_the_code_leaves_it_open(
    error: Exception, kind: Kind | None
) -> None:
    assert classify(error).kind is (kind or Kind.UNAVAILABLE)


def test_a_stale_plan_is_known_by_the_function_in_any_language() -> None:
    fields = {"S": "ERREUR", "V": "ERROR", "C": "0A000", "R": "RevalidateCachedQuery"}

    assert classify(asyncpg.PostgresError.new(fields)).kind is Kind.RETRY
