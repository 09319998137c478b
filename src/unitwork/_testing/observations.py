"""What happens while a block of a test runs: units that end, hooks, statements.

A block inside a sandbox observes that sandbox alone, also what other tasks, threads and
clients do in it. Outside of any, it observes all tasks and threads of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, event

from .._commit.observation import observation
from .._concurrency.fork import renew_after_fork
from .._engine.begin import OF_UNITWORK
from .._redaction import described
from .._sandbox.membership import is_undone, targets_here
from .._session.database_core import DatabaseCore
from .._unit.database_base import DatabaseBase, core_of
from .._unit.unit import Unit
from ..errors import UsageError
from ..outcome import Outcome
from .executed_statement import ExecutedStatement, counted

__all__ = ["EndedUnit", "Observation", "observed"]


class EndedUnit(NamedTuple):
    """The end of one unit."""

    outcome: Outcome
    reason: str
    description: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.description}: {self.outcome.value} ({self.reason})"


class Observation:
    """What has happened since a block began; of some *databases*, or of all."""

    def __init__(self, databases: Iterable[DatabaseBase]) -> None:
        self._scope = _scope()
        self._databases: list[DatabaseCore] = []
        for database in databases:
            if not isinstance(database, DatabaseBase):
                raise UsageError(
                    f"{described(database)} is no database; give a Database or "
                    "AsyncDatabase"
                )
            self._databases.append(core_of(database))
        self.units: list[EndedUnit] = []
        self.writers: list[str] = []
        """What the units were for that have stored something outside of sandboxes."""
        self.executed: list[ExecutedStatement] = []
        self.connected: list[Engine] = []
        self.captured: list[Callable[[], object]] | None = None
        """The on_commit hooks, if they are to be captured."""
        self.captured_are_called = False

    def covers_caller(self) -> bool:
        return self._scope is None or self._scope is _scope()

    def covers_engine(self, engine: Engine) -> bool:
        if not self.covers_caller():
            return False
        # A sandbox has an engine of its own, with the same dialect.
        engines = [each for core in self._databases for each in core.factory.engines]
        dialects = [each.dialect for each in engines]
        return not self._databases or any(engine.dialect is each for each in dialects)

    def covers_unit(self, unit: Unit) -> bool:
        if not self.covers_caller():
            return False
        return not self._databases or any(map(unit.covers, self._databases))

    def unit_ended(self, unit: Unit) -> None:
        outcome, number = unit.outcome, unit.attempt.number
        if outcome is None or outcome is Outcome.EMPTY:
            return
        if outcome is Outcome.COMMITTED and _leaves_something(unit):
            self.writers.append(unit.owner.description)
        ended = EndedUnit(outcome, unit.reason, unit.owner.description, number)
        self._forget_attempt_before(ended)
        self.units.append(ended)

    def _forget_attempt_before(self, ended: EndedUnit) -> None:
        """An attempt that is followed by another one is no end of the work."""
        for before in reversed(self.units):
            if before[2:] == (ended.description, ended.attempt - 1):
                self.units.remove(before)
                return


def _leaves_something(unit: Unit) -> bool:
    written = (each for each, x in unit.sessions.items() if x.may_have_written)
    return not all(map(is_undone, written))


def _scope() -> object | None:
    """The sandbox that the caller belongs to."""
    return next(targets_here(), None)


_observations: list[Observation] = []
"""Replaced, never changed: other threads are reading it."""
_changing = renew_after_fork(Lock())


@contextmanager
def observed(databases: Iterable[DatabaseBase]) -> Iterator[Observation]:
    """Observe what happens while the block runs."""
    made = Observation(databases)
    with _changing:
        _replace([*_observations, made])
    try:
        yield made
    finally:
        with _changing:
            _replace([each for each in _observations if each is not made])


def _replace(observations: list[Observation]) -> None:
    global _observations
    was_on, _observations = bool(_observations), observations
    if bool(observations) is was_on:
        return
    observation.observer = _Observer() if observations else None
    change = event.listen if observations else event.remove
    change(Engine, "before_cursor_execute", _statement)
    change(Engine, "engine_connect", _connected)


class _Observer:
    """Passes what happens to the observations whose scope it is in."""

    def unit_ended(self, unit: Unit) -> None:
        for each in _observations:
            if each.covers_unit(unit):
                each.unit_ended(unit)

    def captures(self, unit: Unit, hook: Callable[[], object]) -> bool:
        called = True
        for each in _observations:
            if each.captured is not None and each.covers_unit(unit):
                each.captured.append(hook)
                called = called and each.captured_are_called
        return not called


def _statement(
    connection: Connection,
    cursor: Any,
    statement: str,
    parameters: Any,
    context: Any,
    executemany: bool,
) -> None:
    options = {} if context is None else context.execution_options
    if options.keys() >= OF_UNITWORK.keys():
        return
    executed = counted(statement, len(parameters) if executemany else 1)
    if executed is None:
        return
    for each in _observations:
        if each.covers_engine(connection.engine):
            each.executed.append(executed)


def _connected(connection: Connection) -> None:
    if connection.get_execution_options().keys() >= OF_UNITWORK.keys():
        return
    for each in _observations:
        if each.covers_engine(connection.engine):
            each.connected.append(connection.engine)
