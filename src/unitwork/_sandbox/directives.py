"""Transaction characteristics in a sandbox: what a savepoint can have is applied.

Isolation levels are checked, and have no effect: there is one connection, and nothing
runs beside a unit. To refuse writes has to work as ever.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from .._engine.begin import (
    AUTOCOMMIT,
    BeginDirectives,
    TransactionCharacteristics,
    directives_of,
)

__all__ = ["directives_for"]

_READ_ONLY_POSTGRESQL = "set_config('transaction_read_only', 'on', true)"


@lru_cache(maxsize=256)
def directives_for(
    dialect: Any, wanted: TransactionCharacteristics | None
) -> BeginDirectives:
    """What applies the *wanted* characteristics to a transaction in a sandbox.

    Raises `UsageError` for those that the database does not have.
    """
    if wanted is None:
        return BeginDirectives()
    found = directives_of(dialect, wanted)
    refuses = wanted.read_only or wanted.isolation_level == AUTOCOMMIT
    is_postgresql = dialect.name == "postgresql"  # others need it before BEGIN
    first = _first_statement(found, refuses=refuses) if is_postgresql else ""
    return BeginDirectives({}, first, found.statement_prefix, refuses)


def _first_statement(found: BeginDirectives, *, refuses: bool) -> str:
    calls = found.first_statement.removeprefix("SELECT ")
    chosen = [calls, _READ_ONLY_POSTGRESQL] if refuses else [calls]
    given = ", ".join(call for call in chosen if call)
    return given and f"SELECT {given}"
