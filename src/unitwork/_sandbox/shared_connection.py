"""The one connection that a sandbox has to an engine, shared by its units in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from .._sql.write_detection import text_known_to_write
from .._transaction.lost_work import unexpected_rollback
from . import savepoints
from .failure import CLOSED, SandboxError
from .outer_transaction import OuterTransaction, Settings, new_name
from .turn import SavepointState, Turn, WriteAccess, Writes
from .turns import Turns
from .violations import (
    committed_inside_rollback,
    connection_lost,
    constraint_of_two,
    constraints_set_around,
    escaped,
    uncommitted_changes,
    write_inside_read_only,
)

__all__ = ["SharedConnection"]


def _commit(proxy: Any) -> None:
    proxy.commit_savepoint()


def _nothing_unflushed() -> None:
    return None


class SharedConnection:
    """Begins and ends the transactions of units, as savepoints in the *outer* one.

    *fail* is called with what must fail the test. Nothing but `turns` decides which
    unit may use the connection.
    """

    def __init__(
        self,
        outer: OuterTransaction,
        timeout: float,
        fail: Callable[[SandboxError], SandboxError],
        find_unflushed: Callable[[], str | None] = _nothing_unflushed,
    ) -> None:
        self.outer = outer
        self._fail = fail
        self._find_unflushed = find_unflushed
        """The name of a session of the test's own with changes, which no unit sees."""
        self.dialect = outer.dialect
        self.turns = Turns(timeout, self._preempt, self.abandon)
        self.send: Callable[[Any], None] = _commit
        """Commits for a unit; replaced by a test that lets COMMIT fail."""
        self.broken: SandboxError | None = None
        """Why it can't be used any more."""

    def check(self) -> None:
        if self.broken is not None:
            raise self.broken

    # Transactions of units

    def begin(self, turn: Turn) -> None:
        """Begin the transaction of *turn*, which has the connection."""
        self.check()
        if turn.savepoint is not None:
            if self.outer.pending:  # of a unit inside it, which would take more along
                self._send(turn, [])
            return
        if not turn.is_preemptible and (changed := self._find_unflushed()):
            raise uncommitted_changes(changed, turn)
        self._check_may_write(turn)
        self._note_bypass(self.turns.around(turn))
        settings = self._settings_around(turn)
        own = () if settings is None else savepoints.restored(self.outer.settings)
        name = self.outer.take_savepoint()
        if own or name is None:
            name = new_name()
            self._send(turn, [f"SAVEPOINT {name}", *own])
        turn.move(SavepointState.OPEN, name)
        turn.forget()
        turn.settings_around = settings
        turn.set_something = settings is not None

    def _send(self, turn: Turn, script: Sequence[str]) -> None:
        try:
            self.outer.send(script)
        except Exception as error:
            self._check_missing(turn, error)
            raise

    def _following(self, turn: Turn) -> Sequence[str]:
        """What makes the savepoint of the next unit, if no other encloses this one."""
        return () if self.turns.around(turn) else self.outer.prepare_savepoint()

    def _settings_around(self, turn: Turn) -> Settings | None:
        """What units around *turn* have set, which is not for it; `None`: nothing."""
        if any(each.set_something for each in self.turns.around(turn)):
            return self.outer.read_settings()
        return None

    def _check_may_write(self, turn: Turn) -> None:
        for outer in self.turns.around(turn):
            if outer.access is not WriteAccess.READ_WRITE and turn.may_write:
                raise self._fail(write_inside_read_only(outer, turn))

    def commit(self, turn: Turn) -> None:
        """Do what COMMIT would do for *turn*; raises what COMMIT would raise."""
        savepoint = turn.savepoint
        if savepoint is None:
            return
        self.check_around(turn)
        self._check_sets_no_constraints(turn)
        try:
            if turn.access is WriteAccess.WRITES_REFUSED:  # this makes sure of it
                self.outer.send(self._rollback_of(turn, savepoint))
            else:
                restored = turn.settings_around or self.outer.settings
                self.outer.send_commit(
                    savepoint,
                    restored if turn.set_something else (),
                    turn.temporary_tables,
                    self._following(turn),
                )
        except Exception as error:
            self._check_missing(turn, error)
            self._check_own_constraints(turn, error)
            if savepoints.is_in_failed_transaction(error):
                raise unexpected_rollback(None) from error
            raise
        turn.move(SavepointState.NONE)
        self._note_commit_inside(turn)
        if turn.mark is not None:
            turn.mark.committed, turn.mark = True, None
        turn.forget()

    def rollback(self, turn: Turn) -> None:
        """Do what ROLLBACK would do for *turn*."""
        savepoint = turn.savepoint
        if savepoint is None:
            return
        turn.move(SavepointState.NONE)
        self.check_around(turn)
        script = self._rollback_of(turn, savepoint)
        self._send(turn, [*script, *self._following(turn)])
        inside = turn.committed_inside
        turn.forget()
        self._check_nothing_kept(turn, inside)

    def abandon(self, turn: Turn) -> None:
        """Roll back *turn* before whatever comes next. No I/O."""
        savepoint = turn.savepoint
        if savepoint is None:
            return
        turn.move(SavepointState.NONE)
        with suppress(SandboxError):  # the test fails at its end
            self.check_around(turn)
            self.outer.pending += self._rollback_of(turn, savepoint)
            inside = turn.committed_inside
            turn.forget()
            self._check_nothing_kept(turn, inside)

    def acknowledge_rollback(self, turn: Turn) -> None:
        """Let *turn* go on: its session has rolled back what was undone before."""
        if turn.state is SavepointState.UNDONE:
            turn.move(SavepointState.NONE)

    def _rollback_of(self, turn: Turn, savepoint: str) -> Sequence[str]:
        script = savepoints.rollback_of(savepoint)
        if self.dialect.name == "sqlite" and turn.access is WriteAccess.WRITES_REFUSED:
            return [*script, "PRAGMA query_only = 0"]
        return script

    # What a unit does

    def note(self, turn: Turn, statement: str) -> None:
        """Look at a *statement* that *turn* is about to execute."""
        turn.last_statement = statement
        self._note_savepoint(turn, statement)
        if self.dialect.name == "postgresql":
            turn.note(statement)
            self.outer.note(statement)

    def _note_savepoint(self, turn: Turn, statement: str) -> None:
        found = savepoints.savepoint_in(statement)
        if found is None:
            return
        verb, name = found
        if verb == "savepoint":
            turn.savepoints_inside[name] = turn.committed_inside
        elif verb == "rollback" and turn.savepoints_inside.get(name) is None:
            self._check_nothing_kept(turn, turn.committed_inside)

    def refuse_writes(self, turn: Turn) -> None:
        """Let the database refuse to write, or make sure that nothing is kept."""
        if turn.access is not WriteAccess.WRITES_REFUSED:
            turn.access = WriteAccess.WRITES_REFUSED
            if self.dialect.name == "sqlite":
                self.outer.send(["PRAGMA query_only = 1"])

    def _note_bypass(self, turns: Sequence[Turn]) -> None:
        """Let the innermost one of *turns* have what the driver was sent since."""
        if self.outer.take_bypass() and turns:
            turns[-1].writes = Writes.SOME

    def _writes_of(self, turn: Turn) -> Writes:
        self._note_bypass([turn])
        return turn.classify_all(partial(text_known_to_write, self.dialect.name))

    def _note_commit_inside(self, turn: Turn) -> None:
        inside = turn.committed_inside
        if inside is None and self._writes_of(turn) is not Writes.NONE:
            inside = turn.name()
        for outer in self.turns.around(turn):
            if outer.savepoint is not None and outer.committed_inside is None:
                outer.committed_inside = inside

    # What fails a test

    def _check_nothing_kept(self, turn: Turn, inside: str | None) -> None:
        """Raise if a unit *inside* was committed, which a rollback has undone now."""
        if inside is not None:
            raise self._fail(committed_inside_rollback(turn, inside))

    def _check_own_constraints(self, turn: Turn, error: Exception) -> None:
        """Raise if *error* may be about what is written around *turn*."""
        if not isinstance(error, self.dialect.loaded_dbapi.IntegrityError):
            return
        for outer in self.turns.around(turn):
            if self._writes_of(outer) is Writes.SOME:
                raise self._fail(constraint_of_two(turn, outer)) from error

    def _check_sets_no_constraints(self, turn: Turn) -> None:
        for outer in self.turns.around(turn):
            if outer.set_constraints:
                raise self._fail(constraints_set_around(turn, outer))

    def check_around(self, turn: Turn) -> None:
        """Raise if the driver reports that the transaction around all has ended."""
        self.check()
        if self.outer.has_begun and not self.outer.is_open:
            raise self._ended(turn)

    def _check_missing(self, turn: Turn, error: Exception) -> None:
        """Raise `SandboxError` if *error* says that it has ended."""
        if not self.outer.has_begun:
            return  # it could not connect
        if savepoints.is_missing(error) or not self.outer.is_open:
            raise self._ended(turn) from error

    def _ended(self, turn: Turn | None) -> SandboxError:
        error = connection_lost(turn) if self.outer.is_lost else escaped(turn)
        self.broken = self._fail(error)
        return error

    def _preempt(self, own: Turn, other: Turn) -> SandboxError | None:
        """End the transaction of the test's *own* session: it has only read."""
        has_failed = own.state is SavepointState.FAILED
        aborted = has_failed and self.dialect.name == "postgresql"
        if self._writes_of(own) is Writes.SOME and not aborted:
            return uncommitted_changes(own.name(), other)
        if own.savepoint is not None:
            release = [savepoints.release_of(own.savepoint)]
            undo = savepoints.rollback_of(own.savepoint)
            self.outer.pending += undo if aborted else release
            own.move(SavepointState.UNDONE if aborted else SavepointState.NONE)
        return None

    # The end

    def finish(self) -> None:
        """Roll everything back, once the units that are open have ended."""
        last = Turn(self.turns, lambda: "the end of the sandbox", self, tuple)
        try:
            self.turns.enter_anywhere(last)
        except SandboxError as error:
            self.broken = self._fail(error)
        is_sound = self.broken is None
        self.broken = self.broken or SandboxError(CLOSED)
        try:
            if not self.outer.close(is_sound=is_sound):
                self._ended(None)
        finally:
            self.turns.leave(last)  # what begins now finds it closed, and does not wait
