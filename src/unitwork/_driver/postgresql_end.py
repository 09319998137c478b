"""COMMIT and ROLLBACK of PostgreSQL: what it has answered, and for which transaction.

asyncpg drops the command tag with which PostgreSQL answers COMMIT: "ROLLBACK" if it has
aborted the transaction. Where another transaction may have begun in the meantime, a
check of the transaction id precedes COMMIT or ROLLBACK, in the same message: if it
fails, PostgreSQL ignores the rest.

Where the position of what was committed is wanted, a query for it follows COMMIT in the
same message. An error may then be that of the query, after a COMMIT that has succeeded:
that is found out before it is raised. The private parts of the drivers that this needs
are used here only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any

from ..errors import CommitUnknownError
from .gtids import LogPosition
from .postgresql_messages import (
    AsyncpgStandIn,
    all_by_psycopg,
    copy_by_asyncpg,
    generate_by_psycopg,
    keep,
    raise_error_in,
)
from .script import send_script
from .wal_position import position_query, read_wal_position

__all__ = ["Answer", "CommittedAt", "before_rollback", "end"]

_STATUS = "txid_status({})"
_RAISED_BY_COMMIT = ("23", "40")
"""The classes of errors that a query for the position can't raise."""

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


class CommittedAt:
    """The position of what a COMMIT has stored, to be found out along with it.

    *txid* identifies the transaction: without it asyncpg can't tell whether COMMIT or
    the query behind it has failed. *system* identifies the server, if it is known.
    """

    __slots__ = ("system", "txid", "value")

    def __init__(self, txid: int | None, system: int | None) -> None:
        self.txid = txid
        self.system = system
        self.value: LogPosition | None = None
        """`None`: not known."""


_ANSWERS = {_DIVISION_BY_ZERO: Answer.REPLACED, _IN_FAILED_TRANSACTION: Answer.ABORTED}


def end(
    dbapi_connection: Any,
    send: Callable[[], None],
    txid: int | None,
    position: CommittedAt | None = None,
) -> Answer:
    """Call *send*, which sends COMMIT or ROLLBACK; return the answer.

    With COMMIT the *position* is found out, where that needs no round trip.

    Neither takes effect unless *txid* is the id of the transaction, if it is given;
    another transaction is rolled back. That an aborted one is going to be rolled back
    libpq has reported before COMMIT. Raises what *send* raises.
    """
    transaction: Any = getattr(dbapi_connection, "_transaction", None)
    if hasattr(transaction, "_connection"):  # asyncpg
        ending = _Ending(transaction, txid, position)
        try:
            send()
        finally:
            transaction._connection = ending.driver
        return ending.answer
    driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    checks = txid is not None or position is not None
    if not checks or not hasattr(driver, "_exec_command"):
        send()
        return Answer.DONE
    with _checking(driver, txid, position) as answers:
        send()
    return answers[-1] if answers else Answer.DONE


class _Ending:
    """In place of the connection of an asyncpg *transaction*, while it ends.

    Sends COMMIT or ROLLBACK, perhaps with a check, and keeps the answer. The attributes
    of the connection that the transaction reads are copied: to look each of them up
    would take longer.
    """

    __slots__ = (
        "_pool_release_ctr",
        "_position",
        "_top_xact",
        "_txid",
        "answer",
        "driver",
        "is_closed",
    )

    def __init__(
        self, transaction: Any, txid: int | None, position: CommittedAt | None
    ) -> None:
        self.driver = driver = transaction._connection
        self.answer = Answer.DONE
        self._txid = txid
        self._position = position
        self._pool_release_ctr = driver._pool_release_ctr
        self.is_closed = driver.is_closed
        if driver._top_xact is transaction:  # as the transaction does, before it sends
            driver._top_xact = None
        self._top_xact = None
        transaction._connection = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver, name)

    async def execute(self, statement: str) -> None:
        check = "" if self._txid is None else _CHECK.format(self._txid)
        position = self._position
        try:
            if position is None or position.txid is None:
                tag = await self.driver.execute(check + statement)
            else:
                tag = await self._commit(check + statement, position)
        except Exception as error:
            answer = _ANSWERS.get(getattr(error, "sqlstate", ""))
            if not check or answer is None:
                raise
            self.answer = answer
            with suppress(Exception):  # it can't be committed, whatever that raises
                await self.driver.execute("ROLLBACK;")
        else:
            if not statement.startswith(tag):
                self.answer = Answer.ABORTED

    async def _commit(self, command: str, position: CommittedAt) -> str:
        """Send the COMMIT of *command*, and the query; return the tag of the answer."""
        status_query = _STATUS.format(position.txid)
        query = position_query(position.system, before=status_query)
        try:
            value = await copy_by_asyncpg(self.driver, command, query)
        except Exception as error:
            code: str = getattr(error, "sqlstate", None) or ""
            if self.driver.is_closed() or not code or code in _ANSWERS:
                raise
            if code.startswith(_RAISED_BY_COMMIT):
                raise
            status = await self._status_after(error, position)
            if status != "committed":
                raise
        else:
            status, _, found = (value or "").partition("|")
            position.value = read_wal_position(found, position.system)
        return "COMMIT" if status == "committed" else "ROLLBACK"

    async def _status_after(self, error: Exception, position: CommittedAt) -> str:
        """What happened to the transaction, though its COMMIT has raised *error*."""
        query = f"SELECT {_STATUS.format(position.txid)}"
        try:
            return await copy_by_asyncpg(self.driver, "", query) or ""
        except Exception:
            raise CommitUnknownError(
                "COMMIT was followed by an error, and what happened to it could not "
                "be found out: the work may be stored or not"
            ) from error


@contextmanager
def _checking(
    driver: Any, txid: int | None, position: CommittedAt | None
) -> Iterator[list[Answer]]:
    """Let psycopg check the id with COMMIT and ROLLBACK; gives what is not done."""
    from psycopg import Error

    answers: list[Answer] = []

    def execute(command: bytes, *args: Any) -> Generator[Any, Any, Any]:
        if command not in (b"COMMIT", b"ROLLBACK") or driver._pipeline is not None:
            return (yield from type(driver)._exec_command(driver, command, *args))
        check = b"" if txid is None else _CHECK.format(txid).encode()
        try:
            if command == b"ROLLBACK" or position is None:
                return (yield from generate_by_psycopg(driver, check + command))
            done = yield from _commit_by_psycopg(driver, check + command, position)
            answers.append(done)
            return None
        except Error as error:
            answer = _ANSWERS.get(error.sqlstate or "")
            if answer is None:
                raise
            answers.append(answer)
        with suppress(Error):  # it can't be committed, whatever that raises
            yield from generate_by_psycopg(driver, b"ROLLBACK")

    with _executing(driver, execute):
        yield answers


@contextmanager
def before_rollback(dbapi_connection: Any, statement: str) -> Iterator[None]:
    """Let *statement* precede the ROLLBACK of the block, in the same message.

    If it fails, nothing is rolled back yet. For drivers other than asyncpg and psycopg
    it is sent before the block.
    """
    transaction: Any = getattr(dbapi_connection, "_transaction", None)
    driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    if hasattr(transaction, "_connection"):  # asyncpg
        transaction._connection = _Preceded(transaction._connection, statement)
        yield
    elif hasattr(driver, "_exec_command"):
        with _preceded(driver, statement.encode()):
            yield
    else:
        send_script(dbapi_connection, [statement])
        yield


class _Preceded(AsyncpgStandIn):
    """Sends a statement with the next one, which ends the transaction."""

    before: str

    __slots__ = ("before",)

    def __init__(self, driver: Any, before: str) -> None:
        keep(self, "driver", driver)
        keep(self, "before", before)

    async def execute(self, statement: str) -> Any:
        return await self.driver.execute(f"{self.before}; {statement}")


@contextmanager
def _preceded(driver: Any, before: bytes) -> Iterator[None]:
    def execute(command: bytes, *args: Any) -> Generator[Any, Any, Any]:
        if command != b"ROLLBACK":  # it deallocates statements afterwards
            return (yield from type(driver)._exec_command(driver, command, *args))
        return (yield from generate_by_psycopg(driver, before + b"; " + command))

    with _executing(driver, execute):
        yield


@contextmanager
def _executing(driver: Any, execute: Callable[..., Any]) -> Iterator[None]:
    """Let *driver*, of psycopg, execute its own commands by *execute*."""
    before = vars(driver).get("_exec_command")  # see `driver_calls`
    driver._exec_command = execute
    try:
        yield
    finally:
        if before is None:
            del driver._exec_command
        else:
            driver._exec_command = before


def _commit_by_psycopg(
    driver: Any, command: bytes, position: CommittedAt
) -> Generator[Any, Any, Answer]:
    """Send the COMMIT of *command*, and the query; each has an answer of its own."""
    query = position_query(position.system)
    results = yield from all_by_psycopg(driver, command + b"; " + query.encode())
    tags = [result.command_status for result in results]
    if b"COMMIT" not in tags:
        raise_error_in(results)
        return Answer.ABORTED
    if results[-1].ntuples:
        found = results[-1].get_value(0, 0).decode()
        position.value = read_wal_position(found, position.system)
    return Answer.DONE
