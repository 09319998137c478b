"""The databases of an application that commit together."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine

from .._session.database_core import DatabaseCore
from ..errors import UsageError
from .dialects import dialect_for
from .statements import TwoPhaseDialect
from .xid import fingerprint

__all__ = ["CommitOrder"]


class CommitOrder:
    """The databases of an application that commit together, in their order.

    Raises `UsageError` for one that can't, as soon as its engine is known.
    """

    def __init__(self, databases: Sequence[DatabaseCore]) -> None:
        self.databases = tuple(databases)
        self._positions = {each.name: n for n, each in enumerate(self.databases, 1)}
        self._fingerprint = ""
        if len(self.databases) < 2:
            raise UsageError(
                "twophase=True is for several databases, and db is one; leave it out"
            )
        for database in self.databases:
            if database.known_engine is not None:
                self.dialect(database.name, database.known_engine)

    @property
    def fingerprint(self) -> str:
        if not self._fingerprint:
            named = [(each.name, each.factory.engine) for each in self.databases]
            self._fingerprint = fingerprint(named)
        return self._fingerprint

    @property
    def detached_after(self) -> float:
        """Seconds after which all that was prepared belongs to no connection."""
        dialects = (self.dialect(d.name, d.factory.engine) for d in self.databases)
        return max(dialect.detached_after for dialect in dialects)

    def position(self, name: str) -> int:
        return self._positions[name]

    def dialect(self, name: str, engine: Engine) -> TwoPhaseDialect:
        dialect = dialect_for(name, engine)
        if dialect.names_at_begin and len(self.databases) > 2:
            raise UsageError(
                f"database {name!r} is MariaDB, which may be one of two databases with "
                f"a two-phase commit, and not of {len(self.databases)}: it forgets a "
                "prepared transaction that has changed nothing"
            )
        return dialect
