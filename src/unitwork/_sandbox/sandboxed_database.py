"""One database in one sandbox: its shared connections, engines and sessions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from .._driver.sqlalchemy_internals import root_engine
from .._engine.begin import STATEMENT, BindCache, TransactionCharacteristics
from .._real_databases.routes import Route, refusing_connections
from .._session.database_core import DatabaseCore
from .._session.factory import SessionFactory
from .._session.opening import Opening
from .._session.owner import SessionOwner
from .._session.unit_session import UnitSession
from .._transaction.statement_release import StatementEngine
from .._unit.context import innermost
from ..settings import DatabaseSettings
from .directives import directives_for
from .engines import TURN, engine_over
from .failure import SandboxError, use_real_mode
from .idle_connections import engine_for_sandboxes
from .membership import targets_here
from .outer_transaction import OuterTransaction
from .portal import Portal
from .shared_connection import SharedConnection
from .turn import SandboxedCommit, Turn

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["SandboxedDatabase"]

_OWN = "the test's own session (`sandbox.{}`)"
_ENGINE = (
    "an engine of database {name!r} was used past its sandbox, which would not undo "
    "that: use `db.engine`, which is in the sandbox, or the real mode, "
    "`sandbox(db, real=True)`"
)


class SandboxedDatabase:
    """The units of one database in one sandbox get their connections from here."""

    def __init__(
        self,
        core: DatabaseCore,
        portal: Portal | None,
        timeout: float,
        fail: Callable[[SandboxError], SandboxError],
        replicas: Collection[Engine] = (),
    ) -> None:
        self.core = core
        self._portal = portal
        self._timeout = timeout
        self._fail = fail
        self._replicas = {each.dialect for each in replicas}
        self._own_factory = core.own_factory
        self._shared: dict[Any, SharedConnection] = {}
        """By the dialect, and so by the pool, of the application's engine."""
        self.routes: dict[Engine, Route] = {}
        """None: its connections are those of the engine."""
        self._engines: dict[Engine, Engine] = {}
        self._sessions: dict[str, Any] = {}
        """Those of the test's own, by their names."""
        self._settings: DatabaseSettings | None = None
        self.factory = core.factory_for(self.engine_for, partial(_SandboxFactory, self))
        self._refusals = ExitStack()
        for engine in {*self._own_factory.engines, *replicas}:
            refusing = refusing_connections(engine, self._refuse)
            self._refusals.enter_context(refusing)

    def _refuse(self) -> None:
        """Refuse the application's own engine to what belongs to the sandbox."""
        if any(each.factory_of(self.core) is self.factory for each in targets_here()):
            raise self._fail(SandboxError(_ENGINE.format(name=self.core.name)))

    @property
    def shared_connections(self) -> Collection[SharedConnection]:
        return self._shared.values()

    def keep(self) -> list[str]:
        return []

    def engine_for(self, engine: Engine) -> Engine:
        """The engine in place of *engine*, which may be one of the sandbox's."""
        if TURN in engine.get_execution_options() or engine in self._engines.values():
            return engine
        found = self._engines.get(engine)
        if found is None:
            shared = self.shared_for(engine)
            found = engine_over(engine, shared, lambda: _anonymous(shared))
            self._engines[engine] = found
        return found

    def shared_for(self, engine: Engine) -> SharedConnection:
        """The connection of *engine*; a replica has that of the main engine."""
        if engine.dialect in self._replicas:
            engine = self._own_factory.engine
        found = self._shared.get(engine.dialect)
        if found is None:
            bind, _ = self._own_factory.binds.find(root_engine(engine), None)
            source = engine_for_sandboxes(bind, self._portal)
            found = self._shared[engine.dialect] = SharedConnection(
                OuterTransaction(source, self._portal),
                self._timeout,
                self._fail,
                self._find_unflushed,
            )
        return found

    def opening_for(
        self, owner: SessionOwner[UnitSession], settings: DatabaseSettings
    ) -> Opening:
        """What the session of a unit is used with."""
        if getattr(owner, "two_phase", None) is not None:
            raise use_real_mode("this unit is to be committed in two phases")
        binds = _UnitBinds(self, owner)
        gate = binds.turn_for(self.shared_for(self._own_factory.engine))
        if self._settings is None:
            self._settings = self._settings_like(settings)
        return Opening(self._settings, gate, binds)

    def _settings_like(self, settings: DatabaseSettings) -> DatabaseSettings:
        """The same, but that the sandbox gives the outcome of a COMMIT in doubt."""
        is_postgresql = self._own_factory.engine.dialect.name == "postgresql"
        is_verified = settings.verify_commit is True and is_postgresql
        return _verified(settings) if is_verified else settings

    # The test's own sessions

    def own_session(self, *, is_async: bool) -> Session | AsyncSession:
        """Make a session of the test's own, which is in no unit."""
        is_other = self.core.is_async and not is_async
        name = _OWN.format("sync_session" if is_other else "session")
        binds = cache(partial(self._own_bind, name))  # one turn for each session
        made = self.factory.make_plain_session(binds, is_async=is_async)
        self._sessions[name] = made
        return made

    def _own_bind(self, name: str, engine: Engine) -> Engine:
        shared = self.shared_for(engine)
        turn = Turn(shared.turns, lambda: name, self, _units_here, is_preemptible=True)
        return self.engine_for(engine).execution_options(**{TURN: turn})

    def _find_unflushed(self) -> str | None:
        """The name of a session of the test's own with changes that no unit can see."""
        sessions = self._sessions.items()
        return next((name for name, each in sessions if _has_changes(each)), None)

    def close(self) -> None:
        """End the test's own sessions, and roll everything back."""
        for session in self._sessions.values():
            with suppress(SandboxError):  # it was broken before
                getattr(session, "sync_session", session).close()
        self._sessions.clear()
        self._refusals.close()
        for shared in self._shared.values():
            shared.finish()


def _has_changes(session: Any) -> bool:
    """Whether *session*, sync or async, has changes that are not flushed."""
    session = getattr(session, "sync_session", session)
    with suppress(RuntimeError):  # changed meanwhile, in another thread
        if session.new or session.deleted:
            return True
        return any(map(session.is_modified, session.dirty))
    return False


class _SandboxFactory(SessionFactory):
    """Makes the sessions of one sandbox."""

    def __init__(
        self, sandboxed: SandboxedDatabase, *args: Any, **options: Any
    ) -> None:
        self._sandboxed_database = sandboxed
        super().__init__(*args, **options)
        self.gate = None
        self.takes_write_lock = False

    @property
    def capacity(self) -> int | None:
        return None  # a unit inside another one nests in it

    def open(
        self, owner: SessionOwner[UnitSession], settings: DatabaseSettings
    ) -> Opening:
        return self._sandboxed_database.opening_for(owner, settings)

    def commit_senders(self) -> Collection[Any]:
        return self._sandboxed_database.shared_connections


class _UnitBinds(BindCache):
    """The engines of one unit; each has its turn among its execution options."""

    nests = True

    def __init__(
        self, sandboxed: SandboxedDatabase, owner: SessionOwner[UnitSession]
    ) -> None:
        super().__init__(release=sandboxed.core.release)
        self._sandboxed = sandboxed
        self._owner = owner
        self._turns: dict[SharedConnection, Turn] = {}

    def turn_for(self, shared: SharedConnection) -> Turn:
        turn = self._turns.get(shared)
        if turn is None:
            owner: Any = self._owner
            turn = self._turns[shared] = Turn(
                shared.turns, lambda: _name_of(owner), owner, owner.outwards
            )
        return turn

    def find(
        self, engine: Engine, wanted: TransactionCharacteristics | None
    ) -> tuple[Engine, Any]:
        directives = directives_for(engine.dialect, wanted)
        if TURN in engine.get_execution_options():
            return engine, directives
        found = self.get((engine, wanted))  # type: ignore[arg-type]  # `None` as well
        if found is None:
            over = self._sandboxed.engine_for(engine)
            turn = self.turn_for(self._sandboxed.shared_for(engine))
            bind = over.execution_options(**{TURN: turn})
            # Not joined again for each unit, which costs.
            bind.dispatch = over.dispatch  # pyright: ignore[reportAttributeAccessIssue]  # of a descriptor
            if wanted is not None and wanted.release == STATEMENT:
                bind = StatementEngine(bind, {})
            found = (bind, directives)
            self[engine, wanted] = found  # type: ignore[index]  # see above
        return found


class _Verifier:
    """Returns the outcome of a COMMIT in doubt: a test has let it fail."""

    def before_commit(self, connection: Connection) -> SandboxedCommit | None:
        proxy: Any = connection.connection.dbapi_connection
        turn: Turn | None = proxy.turn
        if turn is None:
            return None
        turn.mark = SandboxedCommit()
        return turn.mark

    def committed(self, connection: Connection, mark: SandboxedCommit) -> bool:
        return mark.committed


@lru_cache(maxsize=64)
def _verified(settings: DatabaseSettings) -> DatabaseSettings:
    return replace(settings, verify_commit=_Verifier())


def _name_of(unit: Any) -> str:
    name: str = unit.owner.description
    return name


def _units_here() -> Iterable[object]:
    """The units around the caller."""
    unit = innermost()
    return () if unit is None else unit.outwards()


def _anonymous(shared: SharedConnection) -> Turn:
    """The turn of what uses the engine itself; inside a unit it nests in that."""
    around = list(_units_here())
    return Turn(
        shared.turns, lambda: "a connection of the engine", object(), lambda: around
    )
