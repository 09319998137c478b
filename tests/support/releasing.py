"""What is held while a unit is outside of its transaction."""

from __future__ import annotations

from typing import Any

from support.flavours import MARIADB, Flavour
from unitwork import current_unit


def outside(what: str = "openai") -> Any:
    return current_unit().outside(what)


def checked_out(flavour: Flavour) -> int:
    """How many connections are in use, permits for them included."""
    status = flavour.db.pool_status()
    return int(status.checked_out)


def releasing(flavour: Flavour, **options: Any) -> Flavour:
    """The same database in release mode "statement"; MariaDB needs another level."""
    if flavour.name in MARIADB:
        options["isolation_level"] = "READ COMMITTED"
    sizes = {"pool_size": 5, "max_overflow": 0, "pool_timeout": 5}
    return flavour.another(release="statement", **{**sizes, **options})
