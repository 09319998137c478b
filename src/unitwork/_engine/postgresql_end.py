"""COMMIT and ROLLBACK of PostgreSQL: what it has answered, and for which transaction.

asyncpg drops the command tag with which PostgreSQL answers COMMIT: "ROLLBACK" if it has
aborted the transaction. Where another transaction may have begun in the meantime, a
check of the transaction id precedes COMMIT or ROLLBACK, in the same message: if it
fails, PostgreSQL ignores the rest. The private parts of the drivers that this needs are
used here only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any

from .postgresql_messages import AsyncpgStandIn, generate_by_psycopg, keep

__all__ = ["Answer", "end"]

_CHECK = "SELECT 1 / CAST(txid_current_if_assigned() IS NOT DISTINCT FROM {} AS int); "
_DIVISION_BY_ZERO = "22012"
_IN_FAILED_TRANSACTION = "25P02"


class Answer(Enum):
    """How PostgreSQL has answered COMMIT or ROLLBACK."""

    DONE = "done"
    ABORTED = "aborted"
    """The transaction was aborted before, and is rolled back now."""
    REPLACED = "replaced"
    """It was another transaction, which is rolled back now."""


_ANSWERS = {_DIVISION_BY_ZERO: Answer.REPLACED, _IN_FAILED_TRANSACTION: Answer.ABORTED}


def end(dbapi_connection: Any, send: Callable[[], None], txid: int | None) -> Answer:
    """Call *send*, which sends COMMIT or ROLLBACK; return the answer.

    Neither takes effect unless *txid* is the id of the transaction, if it is given;
    another transaction is rolled back. That an aborted one is going to be rolled back
    libpq has reported before COMMIT. Raises what *send* raises.
    """
    transaction: Any = getattr(dbapi_connection, "_transaction", None)
    if hasattr(transaction, "_connection"):  # asyncpg
        return _end_by_asyncpg(transaction, send, txid)
    driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    if txid is None or not hasattr(driver, "_exec_command"):
        send()
        return Answer.DONE
    with _checking(driver, txid) as answers:
        send()
    return answers[-1] if answers else Answer.DONE


def _end_by_asyncpg(
    transaction: Any, send: Callable[[], None], txid: int | None
) -> Answer:
    driver = transaction._connection
    ending = transaction._connection = _Ending(driver, txid)
    try:
        send()
    finally:
        transaction._connection = driver
    return ending.answer


class _Ending(AsyncpgStandIn):
    """Sends COMMIT or ROLLBACK, perhaps with a check, and keeps the answer."""

    answer: Answer
    txid: int | None

    __slots__ = ("answer", "txid")

    def __init__(self, driver: Any, txid: int | None) -> None:
        keep(self, "driver", driver)
        keep(self, "txid", txid)
        keep(self, "answer", Answer.DONE)

    async def execute(self, statement: str) -> None:
        check = "" if self.txid is None else _CHECK.format(self.txid)
        try:
            tag = await self.driver.execute(check + statement)
        except Exception as error:
            answer = _ANSWERS.get(getattr(error, "sqlstate", ""))
            if not check or answer is None:
                raise
            keep(self, "answer", answer)
            with suppress(Exception):  # it can't be committed, whatever that raises
                await self.driver.execute("ROLLBACK;")
        else:
            if not statement.startswith(tag):
                keep(self, "answer", Answer.ABORTED)


@contextmanager
def _checking(driver: Any, txid: int) -> Iterator[list[Answer]]:
    """Let psycopg check the id with COMMIT and ROLLBACK; gives what is not done."""
    from psycopg import Error

    answers: list[Answer] = []

    def execute(command: bytes, *args: Any) -> Generator[Any, Any, Any]:
        if command not in (b"COMMIT", b"ROLLBACK") or driver._pipeline is not None:
            return (yield from type(driver)._exec_command(driver, command, *args))
        check = _CHECK.format(txid).encode()
        try:
            return (yield from generate_by_psycopg(driver, check + command))
        except Error as error:
            answer = _ANSWERS.get(error.sqlstate or "")
            if answer is None:
                raise
            answers.append(answer)
        with suppress(Error):  # it can't be committed, whatever that raises
            yield from generate_by_psycopg(driver, b"ROLLBACK")

    driver._exec_command = execute
    try:
        yield answers
    finally:
        del driver._exec_command
