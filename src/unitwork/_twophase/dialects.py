"""Which databases can take part in a two-phase commit."""

from __future__ import annotations

from sqlalchemy import Engine

from ..errors import UsageError
from . import mariadb
from .mariadb import MariaDB
from .postgresql import PostgreSQL
from .statements import TwoPhaseDialect

__all__ = ["dialect_for"]

_DIALECTS: dict[str, TwoPhaseDialect] = {
    "postgresql": PostgreSQL(),
    "mysql": MariaDB(),
    "mariadb": MariaDB(),
}


def dialect_for(name: str, engine: Engine) -> TwoPhaseDialect:
    """The statements for database *name*; `UsageError` if its engine has none."""
    dialect = _DIALECTS.get(engine.dialect.name)
    if dialect is None:
        raise UsageError(
            f"database {name!r} can't take part in a two-phase commit: "
            f"{engine.dialect.name} has none. Leave twophase=True out, or give "
            "PostgreSQL and MariaDB databases only"
        )
    if dialect.names_at_begin:
        mariadb.listen(engine)
    return dialect
