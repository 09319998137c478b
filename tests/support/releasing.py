"""What is held while a unit is outside of its transaction."""

from __future__ import annotations

from typing import Any

from support.flavours import Flavour
from unitwork import current_unit


def outside(what: str = "openai") -> Any:
    return current_unit().outside(what)


def checked_out(flavour: Flavour) -> int:
    """How many connections are in use, permits for them included."""
    status = flavour.db.pool_status()
    return int(status.checked_out)
