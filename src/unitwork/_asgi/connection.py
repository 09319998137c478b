"""What an HTTP exchange and a WebSocket have in common: a unit, made on first use."""

from __future__ import annotations

from collections.abc import Mapping
from threading import RLock

from .._concurrency.fork import renew_after_fork
from .._replicas.position import NO_POSITIONS, Positions, merged
from .._session.database_core import DatabaseCore
from .._twophase.participants import TwoPhaseCommit
from .._unit.attempts import Attempt
from .._unit.begin_options import check_in_time
from .._unit.owner import UnitOwner
from .._unit.unit import Unit
from ..options import NO_OPTIONS, EndpointMark, TransactionOptions, options_of
from .names import joined
from .problems import name_of
from .route_options import FoundOptions, MiddlewareConfig, is_endpoint, merge_options
from .route_templates import route_of
from .tokens import positions_of
from .types import Scope

__all__ = ["Connection", "uncovered"]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, 9.2.1

_opening = renew_after_fork(RLock())
"""Reentrant: a unit opens the one around it."""


class Connection(UnitOwner):
    """One connection of ASGI; it makes its unit on first use.

    *databases* are those that no connection of a middleware further out (*outer*) has.
    What few connections need has its default in the class: to set all of that in each
    object would take longer than all else that one without a unit costs.
    """

    attempt: Attempt | None = None
    """That of a request that is run again."""
    called: EndpointMark | None = None
    """That of the endpoint, if it was called and the scope has not shown it."""
    found_options: FoundOptions | None
    written_before: Positions = NO_POSITIONS
    """Of what an earlier attempt has stored, by blocks and hooks of its own."""
    _given_positions: Positions | None = None
    committed_inside: tuple[str, ...] = ()
    """The databases of middlewares further in that have committed."""
    unit: Unit | None

    def __init__(
        self,
        scope: Scope,
        config: MiddlewareConfig,
        databases: Mapping[str, DatabaseCore],
        outer: Connection | None,
    ) -> None:
        self.scope = scope
        self.config = config
        self.databases = databases
        self.outer = outer
        self.unit = self.found_options = None

    def open_unit(self) -> Unit:
        """The unit; made now if there is none, and closed if the connection is over."""
        if self.unit is None:
            with _opening:  # two threads of one request need one unit
                if self.unit is None:
                    order = self.config.order
                    parent = None if self.outer is None else self.outer.open_unit()
                    unit = Unit(self.databases, self, parent, self.attempt)
                    if order is not None:
                        unit.two_phase = TwoPhaseCommit(order)
                    unit.expects_writes = self.scope.get("method") not in _SAFE_METHODS
                    if self.is_over:
                        unit.close()
                    self.unit = unit
        return self.unit

    @property
    def description(self) -> str:
        return name_of(self.scope)

    @property
    def method(self) -> str:
        found: str = self.scope.get("method", "")
        return found

    @property
    def path(self) -> str:
        found: str = self.scope.get("path", "")
        return found

    def find_route(self) -> str | None:
        return route_of(self.scope)

    @property
    def is_over(self) -> bool:
        raise NotImplementedError

    def forget_scope(self) -> None:
        """Drop the scope: its state refers to this object."""
        self.scope = {}
        self.found_options = None

    def find_options(self, own: TransactionOptions) -> TransactionOptions:
        """Merge the endpoint's, before *own* (its routers'), before the defaults.

        Frameworks leave the endpoint in the scope once they have found it; one that is
        in a copy of the scope has reported itself.
        """
        endpoint = self.called or self.scope.get("endpoint")
        found = self.found_options
        if found is not None and found[0] is endpoint and found[1] is own:
            return found[2]
        is_plain = own is NO_OPTIONS and self.config.defaults is None
        if is_plain and self.called is None:  # as `merge_options()`
            merged = options_of(endpoint, self.scope.get("method", ""))
        else:
            merged = merge_options(self.scope, self.config, own, self.called)
        self.found_options = endpoint, own, merged
        return merged

    def given_positions(self) -> Positions:
        if self.config.carrier is None:
            return self.written_before
        if self._given_positions is None:
            given = positions_of(self.config.carrier, self.scope)
            before = self.written_before
            self._given_positions = merged(given, before) if before else given
        return self._given_positions

    @property
    def written(self) -> Positions:
        """Of what it has stored, in all its attempts."""
        if self.unit is None or not self.unit.written:
            return self.written_before
        return merged(self.written_before, self.unit.written)

    def endpoint_called(self, mark: EndpointMark) -> None:
        """Take the options of an endpoint that the scope does not show.

        Raises `UsageError` if a transaction has begun without them.
        """
        if self.is_over or is_endpoint(self.scope.get("endpoint")):
            return
        if self.called is None or self.called.reported_by is None:  # a class
            before = NO_OPTIONS if self.called is None else self.called.options
            self.called = EndpointMark(before | mark.options)
            self.called.reported_by = mark.reported_by
            if self.unit is not None:
                check_in_time(self.unit)
                if self.unit.sessions:
                    self.session_requested()


def uncovered(
    databases: Mapping[str, DatabaseCore], outer: Connection
) -> dict[str, DatabaseCore]:
    """Those of *databases* that no outer middleware covers.

    Raises `UsageError` if one of them has the name of another that is covered.
    """
    covered: set[DatabaseCore] = set()
    connection: Connection | None = outer
    while connection is not None:
        covered.update(connection.databases.values())
        connection = connection.outer
    joined({each.name: each for each in covered}, databases.values())
    return {key: each for key, each in databases.items() if each not in covered}
