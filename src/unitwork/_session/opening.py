"""What the sessions of units are used with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .._engine.admission import Gate
    from .._engine.begin import BindCache
    from .._replicas.replica_set import ReplicaSet
    from ..settings import DatabaseSettings

__all__ = ["Opening"]


class Opening(NamedTuple):
    """What the session of a unit is used with."""

    settings: DatabaseSettings
    gate: Gate | None = None
    binds: BindCache | None = None
    replicas: ReplicaSet | None = None
