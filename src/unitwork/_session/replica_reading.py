"""From which server a session reads: a replica, or the primary."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy import Connection, Engine

from .._driver.gtids import LogPosition
from .._engine.admission import Gate, gate_of
from .._engine.begin import BindCache, TransactionCharacteristics
from .._engine.pool_watch import announce
from .._replicas.position import Position
from .._replicas.replica import Replica
from .._replicas.replica_connections import connect_to
from .._replicas.replica_set import ReplicaSet
from ..errors import DatabaseUnavailableError
from .first_setting import first_setting
from .reported_gate import ReportedGate

if TYPE_CHECKING:
    from .._transaction.loan import Loan
    from ..settings import DatabaseSettings
    from .owner import SessionOwner
    from .permit import Permit

__all__ = ["ReplicaReading"]


class _Session(Protocol):
    """The session of a unit, which imports this module and not the other way round."""

    begun_with: TransactionCharacteristics | None
    binds: BindCache | None
    name: str
    owner: SessionOwner[Any]
    permit: Permit | None
    settings: DatabaseSettings

    def acquire_permit_to_connect(self) -> None: ...


class ReplicaReading:
    """From which server the session of one unit reads. Belongs to that session.

    The first transaction that only reads chooses it, and those that follow keep it:
    another replica might not have replayed as much.
    """

    __slots__ = (
        "_gates",
        "_pinned",
        "engine",
        "position_is_due",
        "primary",
        "replicas",
    )

    def __init__(self, replicas: ReplicaSet, primary: Engine) -> None:
        self.replicas = replicas
        self.primary = primary
        self.engine: Engine | None = None
        """That of the open transaction, if it reads from a replica."""
        self._pinned: Replica | Engine | None = None
        self._gates: dict[Engine, Gate] = {}
        self.position_is_due = False
        """Whether something may be committed whose position is not recorded yet."""

    def forget_choice(self) -> None:
        """Choose again at the next transaction."""
        self._pinned = None

    @property
    def pinned_replica(self) -> Replica | None:
        return self._pinned if isinstance(self._pinned, Replica) else None

    def replica_failed(self, error: BaseException) -> None:
        """Record that the replica of the open transaction has raised *error*."""
        if isinstance(self._pinned, Replica):
            self._pinned.raised(error)

    def find_gate(self, session: _Session) -> Gate | None:
        """The gate of the replica that is expected to be chosen; `None`: none is."""
        if self._pinned is self.primary:
            return None
        wanted = session.owner.characteristics(session)
        engine = self.replicas.expected_engine(wanted, self.pinned_replica)
        return None if engine is None else self._gate_of(session, engine)

    def _gate_of(self, session: _Session, engine: Engine) -> Gate | None:
        """That of a replica's pool; `None`: that of the primary's."""
        if engine is self.primary:
            return None
        found = self._gates.get(engine)
        if found is None:
            found = gate_of(engine)
            if session.owner.report is not None:
                pool = self.replicas.pool_name(engine)
                found = ReportedGate(found, session.owner.report, session.name, pool)
            self._gates[engine] = found
        return found

    def bind_to_connect(
        self, session: _Session, bind: Engine | Connection
    ) -> Engine | None:
        """What is to connect in place of *bind*; `None`: nothing else."""
        self.engine = None
        if bind is not self.primary:
            return None
        if self.replicas.serves(session.begun_with) and self._pinned is not bind:
            return cast(Engine, _ReadingBind(self, session))
        if session.permit is not None:
            session.permit.use(None)
        return None

    def bind_of(self, bind: Engine | Connection) -> Engine | None:
        """That of the open transaction in place of *bind*; `None`: it is *bind*."""
        return self.engine if bind is self.primary else None

    def connect(self, session: _Session) -> Connection:
        """Connect to a replica that can serve the session, else to the primary."""
        assert session.binds is not None
        replicas, wanted = self.replicas, session.begun_with
        needed = session.owner.needed_position(session)
        until = time.monotonic() + replicas.wait
        setting = first_setting(session.owner, session.settings)
        for replica in replicas.candidates(wanted, needed, self.pinned_replica):
            self._admit(session, replica.engine)
            engine, _ = session.binds.find(replica.engine, wanted)
            announce(session.owner.report, session.name, engine)
            connection = connect_to(
                replica,
                engine,
                None if needed is None else needed.at,
                max_lag=replicas.max_lag,
                until=until,
                setting=setting,
            )
            if connection is not None:
                self.engine, self._pinned = engine, replica
                return connection
            if session.owner.report is not None:
                session.owner.report.take_waited(session.name)  # another pool's
        self._check_fallback(session)
        self._admit(session, self.primary)
        engine, _ = session.binds.find(self.primary, wanted)
        announce(session.owner.report, session.name, engine)
        connection = engine.connect()
        self._pinned = self.primary
        return connection

    def _check_fallback(self, session: _Session) -> None:
        if self.replicas.fallback or any(x.usable for x in self.replicas.replicas):
            return
        found = "; ".join(
            f"{each.status.address}: {each.reason}" for each in self.replicas.replicas
        )
        raise DatabaseUnavailableError(
            f"no replica of database {session.name!r} can be read from ({found}), and "
            "with replica_fallback=False the primary does not take their place"
        )

    def _admit(self, session: _Session, engine: Engine) -> None:
        """Hold a permit for the pool of *engine*, and for no other one."""
        if session.permit is not None:
            session.permit.use(self._gate_of(session, engine))
            session.acquire_permit_to_connect()

    def pool_name(self, session: _Session) -> str:
        """The name of the pool that the open transaction's connection came from."""
        replica = None if self.engine is None else self.pinned_replica
        return session.name if replica is None else replica.name

    # What it writes

    def connected(self, session: _Session, connection: Connection, loan: Loan) -> None:
        """Let COMMIT of the primary return the position, unless it only reads."""
        begun_with = session.begun_with
        writes = begun_with is None or not begun_with.read_only
        is_primary = connection.dialect is self.primary.dialect
        loan.wants_position = self.position_is_due = writes and is_primary

    def position_of(self, at: LogPosition | None) -> Position:
        self.position_is_due = False
        return self.replicas.position_of(at)


class _ReadingBind:
    """In place of the primary's engine, for a session that is about to connect."""

    def __init__(self, reading: ReplicaReading, session: _Session) -> None:
        self._reading = reading
        self._session = session

    def connect(self) -> Connection:
        return self._reading.connect(self._session)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reading.primary, name)
