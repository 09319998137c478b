"""What errors mean: every code of the table, every driver, every hiding place."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import asyncmy.errors
import asyncpg
import psycopg
import pymysql.err
import pytest
from sqlalchemy import exc
from sqlalchemy.orm.exc import StaleDataError

from unitwork import (
    Classification,
    CommitUnknownError,
    Kind,
    MissingSessionError,
    Phase,
    PoolTimeoutError,
    UnexpectedRollbackError,
    classify,
)
from unitwork._codes import CODES


def driver_error(driver: str, *args: object, **attributes: object) -> Exception:
    """An exception as *driver*, which is not installed here, would raise it."""
    body = {"__module__": driver, **attributes}
    return type("DatabaseError", (Exception,), body)(*args)


def postgresql(code: str, text: str = "no", severity: str = "ERROR") -> Exception:
    fields = {"S": severity, "V": severity, "C": code, "M": text}
    error: Exception = asyncpg.PostgresError.new(fields)
    return error


def sqlite(code: int) -> Exception:
    return driver_error("sqlite3", "no", sqlite_errorcode=code)


def oracle(code: str) -> Exception:
    return driver_error("oracledb", driver_error("oracledb", full_code=code))


def mssql(code: int | str) -> Exception:
    if isinstance(code, str):
        return driver_error("pyodbc", code, f"[{code}] [Microsoft] no (0) (SQLExec)")
    return driver_error("pyodbc", "42000", f"[42000] [Microsoft] no ({code}) (SQLExec)")


def standard(code: str) -> Exception:
    return driver_error("a_new_driver", "no", sqlstate=code)


def wrapped(orig: Exception, *, lost: bool = False) -> exc.DBAPIError:
    return exc.DBAPIError("SELECT 1", {}, orig, connection_invalidated=lost)


MAKE: dict[str | None, Any] = {
    "postgresql": postgresql,
    "mysql": pymysql.err.OperationalError,
    "sqlite": sqlite,
    "oracle": oracle,
    "mssql": mssql,
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
    ("mssql", Kind.RETRY, "1205 3935 3941 3948 3957 3960 3966 40001"),
    ("mssql", Kind.RETRY, "41301 41302 41305 41325 41839"),
    ("mssql", Kind.RETRY_WITH_CARE, "1222 1204"),
    ("mssql", Kind.UNAVAILABLE, "10928 10929 40501 49918 49919 49920"),
    ("mssql", Kind.RECONNECT, "40143 40197 40540 40613 4060 4221 08S01 08S02"),
    ("mssql", Kind.RECONNECT, f"233 64 20 121 10053 10054 10060 997 11001 {LINE}"),
    ("mssql", Kind.UNKNOWN, "08007"),
    ("mssql", Kind.TIMEOUT, "-2 HYT00 HYT01"),
    ("mssql", Kind.PRIMARY, "3906"),
    ("mssql", Kind.NEVER, "2601 2627 547 18456 102"),
    ("oracle", Kind.RETRY, "ORA-08177 ORA-00060"),
    ("oracle", Kind.RETRY_WITH_CARE, "ORA-00054 ORA-30006"),
    ("oracle", Kind.RECONNECT, "ORA-00028 ORA-01033 ORA-02396 ORA-03113 ORA-03114"),
    ("oracle", Kind.RECONNECT, "ORA-03135 DPI-1010 DPI-1080 DPY-1001 DPY-4011"),
    ("oracle", Kind.TIMEOUT, "ORA-01013"),
    ("oracle", Kind.PRIMARY, "ORA-01456 ORA-16000"),
    ("oracle", Kind.NEVER, "ORA-00001 ORA-01017 ORA-00942"),
    (None, Kind.RETRY, "40001"),
    (None, Kind.RECONNECT, LINE),
    (None, Kind.UNKNOWN, "40003 08007"),
    (None, Kind.NEVER, "23505"),
]
SQLSTATES = {"40001", "08007", *LINE.split()}  # which look like numbers


def as_found(family: str | None, code: str) -> str | int:
    numbers = family in ("mysql", "sqlite", "mssql") and code not in SQLSTATES
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
        (driver_error("pymssql", 1205, b"no"), 1205),
        (driver_error("pymssql", (1205, b"no")), 1205),
        (driver_error("cx_Oracle", driver_error("cx_Oracle", code=60)), "ORA-00060"),
        (sqlite(517), 517),
    ],
)
@pytest.mark.parametrize("wrap", [wrapped, lambda error: error])
def test_finds_the_code_where_the_driver_has_it(
    error: Exception, code: str | int, wrap: Any
) -> None:
    found = classify(wrap(error))

    assert (found.kind, found.code) == (Kind.RETRY, code)


def test_prefers_the_number_it_knows_of_those_in_an_odbc_message() -> None:
    text = "[42000] prepare failed. (8180) (SQLExec); [40001] deadlocked. (1205)"

    assert classify(driver_error("pyodbc", "42000", text)).code == 1205


@pytest.mark.parametrize(
    ("text", "code"), [("database is locked", 5), ("disk I/O error", 10), ("no", None)]
)
def test_reads_the_message_of_sqlite_if_the_code_was_lost(
    text: str, code: int | None
) -> None:
    assert classify(driver_error("sqlite3", text)).code == code


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
    ],
)
def test_reads_the_message_where_the_code_leaves_it_open(
    error: Exception, kind: Kind | None
) -> None:
    assert classify(error).kind is (kind or Kind.UNAVAILABLE)


def test_a_stale_plan_is_known_by_the_function_in_any_language() -> None:
    fields = {"S": "ERREUR", "V": "ERROR", "C": "0A000", "R": "RevalidateCachedQuery"}

    assert classify(asyncpg.PostgresError.new(fields)).kind is Kind.RETRY


# Phases


LOST = [
    wrapped(postgresql("57P01", severity="FATAL"), lost=True),
    wrapped(asyncpg.ConnectionDoesNotExistError("closed in mid-operation"), lost=True),
    wrapped(psycopg.OperationalError("the connection is closed")),
    wrapped(pymysql.err.OperationalError(2013, "Lost connection during query")),
    wrapped(asyncmy.errors.InterfaceError(0, "")),
    wrapped(driver_error("a_new_driver", "gone"), lost=True),
    wrapped(oracle("DPY-4011")),
    wrapped(driver_error("oracledb", driver_error("oracledb", isrecoverable=True))),
    exc.DisconnectionError(),
]


@pytest.mark.parametrize("error", LOST)
@pytest.mark.parametrize(
    ("phase", "kind"),
    [
        (Phase.CONNECT, Kind.RECONNECT),
        (Phase.STATEMENT, Kind.RECONNECT),
        (Phase.COMMIT, Kind.UNKNOWN),
        (Phase.ROLLBACK, Kind.RECONNECT),
    ],
)
def test_a_lost_connection_means_another_thing_in_each_phase(
    error: Exception, phase: Phase, kind: Kind
) -> None:
    found = classify(error, phase=phase)

    assert (found.kind, found.disconnected) == (kind, True)
    assert found.retryable is not found.unknown
    assert found.poisons is (phase in (Phase.STATEMENT, Phase.ROLLBACK))


@pytest.mark.parametrize(
    "error", [TimeoutError(), ConnectionResetError(), OSError(5, "I/O"), LOST[0]]
)
def test_what_the_line_says_at_commit_leaves_the_outcome_unknown(
    error: Exception,
) -> None:
    assert classify(error, phase=Phase.COMMIT).unknown


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt()])
def test_a_commit_that_was_cancelled_may_have_happened(error: BaseException) -> None:
    assert classify(error, phase=Phase.COMMIT).unknown
    assert classify(error).kind is Kind.NEVER


@pytest.mark.parametrize("code", ["40001", "40P01", "23505", "57014"])
def test_an_error_of_the_server_at_commit_is_no_doubt(code: str) -> None:
    found = classify(postgresql(code), phase=Phase.COMMIT)

    assert (found.unknown, found.poisons, found.disconnected) == (False, True, False)


def test_what_is_in_doubt_for_the_server_is_in_doubt_at_any_time() -> None:
    assert classify(postgresql("40003"), phase=Phase.STATEMENT).unknown


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), Kind.TIMEOUT),  # asyncio.timeout() around anything
        (ConnectionResetError(), Kind.NEVER),  # any other server's
        (FileNotFoundError(2, "not there", "a.txt"), Kind.NEVER),
    ],
)
def test_other_peoples_trouble_is_not_the_databases(
    error: Exception, kind: Kind
) -> None:
    assert classify(error).kind is kind
    assert not classify(error).disconnected


def test_a_missing_file_at_commit_is_no_lost_connection() -> None:
    error = FileNotFoundError(2, "not there", "a.txt")

    assert classify(error, phase=Phase.COMMIT).kind is Kind.NEVER


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (exc.TimeoutError("QueuePool limit"), Kind.UNAVAILABLE),
        (PoolTimeoutError("busy"), Kind.UNAVAILABLE),
        (StaleDataError("expected 1 row"), Kind.RETRY_WITH_CARE),
        (CommitUnknownError(), Kind.UNKNOWN),
        (UnexpectedRollbackError(), Kind.DOOMED),
        (exc.PendingRollbackError(), Kind.DOOMED),
        (MissingSessionError(), Kind.NEVER),
        (wrapped(driver_error("a_new_driver", "no")), Kind.NEVER),
        (exc.DBAPIError("SELECT 1", {}, None), Kind.NEVER),  # type: ignore[arg-type]
        (driver_error("pymysql"), Kind.NEVER),
        (driver_error("oracledb"), Kind.NEVER),
        (driver_error("pyodbc"), Kind.NEVER),
    ],
)
def test_knows_what_has_no_code(error: Exception, kind: Kind) -> None:
    assert classify(error).kind is kind


# Claims


@pytest.mark.parametrize("kind", Kind)
def test_only_two_kinds_are_retryable_without_asking(kind: Kind) -> None:
    found = classify(ValueError(), rules=[lambda found: kind])

    assert found.retryable is (kind in (Kind.RETRY, Kind.RECONNECT))


@pytest.mark.parametrize(
    ("error", "poisons"),
    [
        *[
            (pymysql.err.OperationalError(n, ""), True)
            for n in (1213, 1020, 3101, 1614)
        ],
        *[(pymysql.err.OperationalError(n, ""), False) for n in (1205, 1062, 1317)],
        *[(postgresql(code), True) for code in ("23505", "22012", "40001", "P0001")],
        *[(sqlite(code), True) for code in (7, 9, 10, 13, 516)],
        *[(sqlite(code), False) for code in (5, 517, 19)],
        (oracle("ORA-00060"), False),
        (mssql(1205), True),
        (asyncpg.DataError("invalid input for query argument $1"), False),
        (psycopg.ProgrammingError("cannot adapt type 'object'"), False),
    ],
)
def test_says_whether_the_server_has_rolled_back_by_itself(
    error: Exception, poisons: bool
) -> None:
    assert classify(wrapped(error)).poisons is poisons


def test_there_is_nothing_to_poison_before_there_is_a_connection() -> None:
    assert not classify(postgresql("53300"), phase=Phase.CONNECT).poisons


def test_is_frozen_and_compares_by_what_it_says() -> None:
    found = classify(postgresql("40001"))

    assert found == classify(postgresql("40001"))
    assert isinstance(found.error, asyncpg.SerializationError)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.kind = Kind.NEVER  # type: ignore[misc]  # that is the point


# Chains


def raised(error: BaseException, *, cause: Any = None, during: Any = None) -> Any:
    error.__context__ = during
    if cause is not None:
        error.__cause__ = cause
    return error


RACE = wrapped(postgresql("40001"))


@pytest.mark.parametrize(
    "error",
    [
        raised(RuntimeError("Caught handled exception, but …"), cause=RACE),
        raised(ValueError(), during=raised(KeyError(), during=RACE)),
        ExceptionGroup("one", [BaseExceptionGroup("one", [RACE])]),
        raised(UnexpectedRollbackError(), cause=RACE),
        wrapped(raised(postgresql("25P02"), during=RACE)),
    ],
)
def test_finds_the_error_behind_others(error: BaseException) -> None:
    found = classify(error)

    assert (found.kind, found.code, found.poisons) == (Kind.RETRY, "40001", True)


def test_does_not_look_behind_from_none() -> None:
    error = raised(ValueError(), during=RACE)
    error.__suppress_context__ = True

    assert classify(error).kind is Kind.NEVER


def test_of_several_errors_at_once_it_can_say_nothing() -> None:
    assert classify(ExceptionGroup("two", [RACE, ValueError()])).kind is Kind.NEVER


def test_a_circle_has_an_end() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first

    assert classify(first).kind is Kind.NEVER


def test_a_lost_savepoint_does_not_hide_the_deadlock() -> None:
    lost = pymysql.err.OperationalError(1305, "SAVEPOINT sa_savepoint_1 does not exist")
    deadlock = pymysql.err.OperationalError(1213, "Deadlock found")

    assert classify(raised(lost, during=deadlock)).code == 1213
    assert classify(raised(lost, during=ValueError())).code == 1305


def test_what_was_swallowed_came_before_commit() -> None:
    error = raised(UnexpectedRollbackError(), cause=LOST[0])

    assert classify(error, phase=Phase.COMMIT).kind is Kind.RECONNECT


def test_an_unknown_outcome_stays_one_wherever_it_is_asked_about() -> None:
    found = classify(raised(CommitUnknownError(), cause=LOST[0]))

    assert (found.unknown, found.phase, found.code) == (True, Phase.COMMIT, "57P01")


# Rules


def taken(found: Classification) -> Kind | None:
    return Kind.RETRY if found.code == "23505" else None


def test_a_rule_says_otherwise() -> None:
    error = wrapped(postgresql("23505"))

    assert classify(error).kind is Kind.NEVER
    assert classify(error, rules=[taken]).retryable
    assert not classify(postgresql("23502"), rules=[taken]).retryable


def test_the_first_rule_with_an_opinion_is_obeyed() -> None:
    rules = [lambda found: None, lambda found: Kind.TIMEOUT, lambda found: Kind.RETRY]

    assert classify(ValueError(), rules=rules).kind is Kind.TIMEOUT


def test_a_rule_sees_errors_that_are_no_databases() -> None:
    def mine(found: Classification) -> Kind | None:
        return Kind.RETRY if isinstance(found.error, LookupError) else None

    assert classify(KeyError(), rules=[mine]).retryable


@pytest.mark.parametrize("error", LOST)
def test_no_rule_makes_an_unknown_outcome_retryable(error: Exception) -> None:
    found = classify(error, phase=Phase.COMMIT, rules=[lambda found: Kind.RETRY])

    assert found.unknown
