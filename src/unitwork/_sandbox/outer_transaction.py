"""The connection of a sandbox, and the transaction around all that happens in it.

It is opened by the first statement. All of its I/O is made in one event loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.pool import Pool

from .._driver.driver_connection import in_transaction, is_closed, sent_so_far
from .._driver.postgresql_end import before_rollback
from .._driver.script import send_script
from .._real_databases.routes import connecting_by_itself
from .._sql.sql_text import MYSQL
from .._transaction.connection_state import known_state
from .._transaction.session_reset import move_traces
from .._transaction.unit_begin import begin_to_read
from . import savepoints
from .portal import Portal

__all__ = ["OuterTransaction", "Settings", "new_name"]

T = TypeVar("T")
Settings: TypeAlias = Sequence[tuple[str, str]]

_OUTERMOST = "unitwork_sandbox"
_numbers = itertools.count(1)


def new_name() -> str:
    """The name of another savepoint."""
    return f"unitwork_{next(_numbers)}"


class OuterTransaction:
    """One connection of *source*, and its transaction, which is rolled back."""

    def __init__(self, source: Engine, portal: Portal | None) -> None:
        self._source = source
        self._portal = portal
        self.dialect: Any = source.dialect
        self._connection: Connection | None = None
        self._pool: Pool | None = None
        """Where the connection comes from."""
        self.raw: Any = None
        """The DBAPI connection, while it is open."""
        self.driver: Any = None
        """The driver's connection, while it is open."""
        self._sent = 0
        """How much the driver had been sent after the last call of a unit."""
        self._was_bypassed = False
        self._constraints: str | None = None
        """Those that are deferred; `None`: none can be."""
        self._has_new_constraints = False
        self.settings: Settings = ()
        """Those of the connection, once a unit has changed some."""
        self._has_settings = False
        self.pending: list[str] = []
        """To be sent before all else: what has ended without I/O."""
        self._prepared: str | None = None
        """A savepoint that is open, for the next unit."""
        self.info: dict[Any, Any] = {}
        """What units have left on the connection, or may have."""

    def in_loop(self, call: Callable[..., T], *args: object) -> T:
        """Call *call*, which does I/O for a unit, in the event loop of the connection.

        What the driver is sent in between is sent past SQLAlchemy.
        """
        self._note_bypass()
        try:
            if self._portal is None:
                return call(*args)
            return self._portal.call(call, *args)
        finally:
            self._sent = sent_so_far(self.driver)

    def _note_bypass(self) -> None:
        if sent_so_far(self.driver) != self._sent:
            self._was_bypassed = True

    def prepare_savepoint(self) -> Sequence[str]:
        """What makes a savepoint for the next unit: it takes no round trip then.

        Nothing where a round trip is for one statement alone, or is none.
        """
        if self.dialect.name != "postgresql":
            return ()
        self._prepared = new_name()
        return [f"SAVEPOINT {self._prepared}"]

    def take_savepoint(self) -> str | None:
        """The savepoint that is prepared, if there is one, and nothing is pending."""
        name, self._prepared = self._prepared, None
        return None if self.pending else name

    def take_bypass(self) -> bool:
        """Whether the driver was sent something past SQLAlchemy since the last time."""
        self._note_bypass()
        found, self._was_bypassed = self._was_bypassed, False
        if found:
            self._prepared = None  # what was sent would be undone with the next unit
        self._sent = sent_so_far(self.driver)
        return found

    @property
    def has_begun(self) -> bool:
        return self._connection is not None

    @property
    def is_open(self) -> bool:
        """Whether the driver reports that it goes on."""
        return in_transaction(self.driver) and not is_closed(self.driver)

    @property
    def is_lost(self) -> bool:
        return self._connection is not None and is_closed(self.driver)

    def send(self, script: Sequence[str]) -> None:
        """Send what is pending and *script*; open the connection before, if need be."""
        self.in_loop(self._send, script)

    def send_commit(
        self,
        savepoint: str,
        restored: Settings,
        dropped: Sequence[str],
        following: Sequence[str],
    ) -> None:
        """Do what COMMIT would do for the transaction that *savepoint* stands for.

        *restored*: the settings after it, if it may have set something. *dropped*: its
        tables with ON COMMIT DROP. *following* is executed if that has succeeded.
        """
        self.in_loop(self._send_commit, savepoint, restored, dropped, following)

    def note(self, statement: str) -> None:
        """Look at a *statement* that is about to be executed.

        Keep what is set now, if it may change that.
        """
        if savepoints.is_definition(statement):
            self._has_new_constraints = True
        if savepoints.changes_settings(statement) and not self._has_settings:
            self.settings, self._has_settings = self.read_settings(), True

    def read_settings(self) -> Settings:
        """Those in force now."""
        return self.in_loop(self._read_settings)

    # In its event loop

    def _send(self, script: Sequence[str]) -> None:
        if self._connection is None and self._open(script):
            return
        pending, self.pending = self.pending, []
        if pending or script:
            try:
                send_script(self.raw, [*pending, *script])
            except BaseException:
                self._prepared = None
                raise

    def _open(self, script: Sequence[str]) -> bool:
        """Open the connection; return whether *script* was sent with BEGIN."""
        self._pool = self._source.pool
        with connecting_by_itself():
            connection = self._source.connect()
        try:
            connection.begin()
            first = [f"SAVEPOINT {_OUTERMOST}", *script]
            found = begin_to_read(connection, savepoints.CONSTRAINTS, "; ".join(first))
            if connection.dialect.name in MYSQL:  # which begins at a table otherwise
                connection.exec_driver_sql("START TRANSACTION")
            self._connection = connection
            self.raw = connection.connection.dbapi_connection
            self.driver = connection.connection.driver_connection
            if found is None:
                self._read_constraints()
                self.pending.insert(0, first[0])
            else:
                self._constraints = savepoints.deferred_in(found)
        except BaseException:
            self._connection = self.raw = self.driver = None
            connection.invalidate()
            connection.close()
            raise
        return found is not None

    def _send_commit(
        self,
        savepoint: str,
        settings: Settings,
        dropped: Sequence[str],
        following: Sequence[str],
    ) -> None:
        self._send([])
        if self.dialect.name == "sqlite":
            self._check_foreign_keys()
        if self._has_new_constraints:
            self._read_constraints()
        script = savepoints.commit_of(savepoint, self._constraints, dropped)
        restored = savepoints.restored(settings) if settings else ()
        self._send([*script, *restored, *following])
        self._has_new_constraints = False  # not before: they are undone if it fails

    def _query(self, sql: str) -> Sequence[Any]:
        cursor = self.raw.cursor()
        try:
            cursor.execute(sql)
            rows: Sequence[Any] = cursor.fetchall()
        finally:
            cursor.close()
        return rows

    def _read_constraints(self) -> None:
        if self.dialect.name != "postgresql":
            return
        ((found,),) = self._query(savepoints.CONSTRAINTS)
        self._constraints = savepoints.deferred_in(found)

    def _read_settings(self) -> Settings:
        self._send([])  # what is pending may restore some
        rows = self._query(savepoints.SETTINGS)
        return [(name, value) for name, value in rows]

    def _check_foreign_keys(self) -> None:
        (enforced,) = self._query("PRAGMA foreign_keys")[0]
        if enforced and self._query("PRAGMA foreign_key_check"):
            error: type[Exception] = self.dialect.loaded_dbapi.IntegrityError
            raise error("FOREIGN KEY constraint failed")

    def close(self, *, is_sound: bool) -> bool:
        """Roll everything back; return whether it was the same transaction still.

        Discards the connection, and looks at nothing, unless it *is_sound*.
        """
        return self.in_loop(self._close, is_sound)

    def _close(self, is_sound: bool) -> bool:
        connection, self._connection = self._connection, None
        if connection is None:
            return True
        self.raw = self.driver = None
        try:
            if not is_sound:
                connection.invalidate()
                return True
            if not _roll_back(connection):
                connection.invalidate()
                return False
            move_traces(self.info, connection.info)
            known_state(connection).watch_again()
            return True
        except BaseException:
            connection.invalidate()
            raise
        finally:
            if self._pool is not self._source.pool:  # disposed of: nothing closes it
                connection.invalidate()
            connection.close()


def _roll_back(connection: Connection) -> bool:
    """Roll back; return whether the first savepoint of the transaction was there."""
    pooled: Any = connection.connection.dbapi_connection
    if not in_transaction(connection.connection.driver_connection):
        return False
    try:
        with before_rollback(pooled, f"ROLLBACK TO SAVEPOINT {_OUTERMOST}"):
            connection.rollback()
    except Exception as error:
        if savepoints.is_missing(error):
            return False
        raise
    return True
