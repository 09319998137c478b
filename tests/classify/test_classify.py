"""What errors mean: in each phase, behind others, and by the rules of users."""

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

from support.driver_errors import (
    driver_error,
    postgresql,
    sqlite,
    wrapped,
)
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

# Phases


LOST = [
    wrapped(postgresql("57P01", severity="FATAL"), lost=True),
    wrapped(asyncpg.ConnectionDoesNotExistError("closed in mid-operation"), lost=True),
    wrapped(psycopg.OperationalError("the connection is closed")),
    wrapped(pymysql.err.OperationalError(2013, "Lost connection during query")),
    wrapped(asyncmy.errors.InterfaceError(0, "")),
    wrapped(driver_error("a_new_driver", "gone"), lost=True),
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


def test_an_error_that_is_its_own_cause_is_classified() -> None:
    error = CommitUnknownError()
    error.__cause__ = error

    assert classify(error).kind is Kind.UNKNOWN
