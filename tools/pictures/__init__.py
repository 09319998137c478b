"""The pictures of the manual, drawn from the code and from real runs."""

from __future__ import annotations

from collections.abc import Callable

from . import gate, nesting, request, states, topologies

__all__ = ["PICTURES"]

PICTURES: dict[str, Callable[[], str]] = {
    "request": request.draw,
    "states": states.draw,
    "gate": gate.draw,
    "nesting": nesting.draw,
    "single": topologies.draw_single,
    "processes": topologies.draw_processes,
    "pooler": topologies.draw_pooler,
    "replicas": topologies.draw_replicas,
    "galera": topologies.draw_galera,
    "failover": topologies.draw_failover,
}
"""By the names of their files in docs/pictures."""
