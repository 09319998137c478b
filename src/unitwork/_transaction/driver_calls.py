"""What is sent through the driver's own connection, beside the work of the session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import ref

from sqlalchemy import Connection

from .._driver.driver_calls import SAVEPOINT_OF_ASYNCPG
from .._driver.sqlalchemy_internals import is_autocommit
from .._sql.savepoint_text import SavepointCommand, SavepointStep
from .._sql.statement_facts import LONG, facts_of, known_facts
from .loan_holder import LoanHolder

__all__ = ["DriverCalls"]


class DriverCalls:
    """Those of one loan, once its connection has been requested.

    The savepoints of a driver, `connection.transaction()`, are those of all tasks of
    the unit, as the session's are.
    """

    __slots__ = ("_connection", "_dialect", "_expected")

    is_text = True
    """As of an execution context: whether SQLAlchemy does not know of a savepoint."""

    def __init__(self, connection: Connection, *, with_sqlalchemy: bool) -> None:
        self._connection = ref(connection)
        self._dialect = connection.dialect.name
        self._expected: list[SavepointCommand] | None = [] if with_sqlalchemy else None
        """What SQLAlchemy is about to send, if its statements are seen as well."""

    @property
    def root_connection(self) -> Connection | None:
        return self._connection()

    def expect(self, command: SavepointCommand) -> None:
        """Take the next *command* for SQLAlchemy's, which is recorded already."""
        if self._expected is not None:
            self._expected.append(command)

    def note(self, statement: str, loan: Any, holder: LoanHolder[Any]) -> None:
        """Record a *statement* that is about to be sent on the connection of *loan*."""
        find = known_facts if len(statement) <= LONG else facts_of
        facts = find(self._dialect, statement)
        if facts.writes is not False:
            self._note_write(loan)
        for command in facts.savepoints:
            if self._expected and command in self._expected:
                self._expected.remove(command)
                continue
            for each in _all_of(command):
                for undone in holder.open_savepoints().note_command(loan, each, self):
                    holder.savepoint_undone(undone)

    def _note_write(self, loan: Any) -> None:
        if loan.savepoints is not None:
            loan.savepoints.note_work()
        connection, is_past = self._connection(), not loan.statements_in_flight
        if is_past and connection is not None and is_autocommit(connection):
            loan.wrote = True  # else the database can tell whether it has


def _all_of(command: SavepointCommand) -> Iterator[SavepointCommand]:
    yield command
    is_over = command.name.startswith(SAVEPOINT_OF_ASYNCPG)
    if is_over and command.step is SavepointStep.ROLL_BACK:
        yield SavepointCommand(SavepointStep.RELEASE, command.name)
