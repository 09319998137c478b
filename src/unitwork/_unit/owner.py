"""The interface of a unit to the request, WebSocket or block that opened it."""

from __future__ import annotations

from .._observing.subjects import UnitKind
from .._replicas.position import Positions
from ..options import EndpointMark, TransactionOptions

__all__ = ["UnitOwner"]


class UnitOwner:
    """Opens and ends a unit. This base class is the owner of a block's unit."""

    __slots__ = ()

    kind: UnitKind = "block"

    @property
    def method(self) -> str:
        """That of the request; empty if there is none."""
        return ""

    @property
    def path(self) -> str:
        """The path of the request, as it was sent; empty if there is none."""
        return ""

    def find_route(self) -> str | None:
        """The template of the path, once a framework has found the route."""
        return None

    @property
    def description(self) -> str:
        """What the unit is for, in messages."""
        return "a transaction() block"

    def find_options(self, own: TransactionOptions) -> TransactionOptions:
        """Merge the unit's *own* options with those of its route and application."""
        return own

    def endpoint_called(self, mark: EndpointMark) -> None:
        """Called when an endpoint with options is: only a connection needs them."""

    def is_served_by(self, task: object) -> bool:
        """Whether the server has called the application for its request in *task*."""
        return False

    def allows_another_attempt(self) -> bool:
        """Whether the work could be done once more from its beginning."""
        return True

    @property
    def deadline_ends_at(self) -> float | None:
        """When the time of its hooks is over, by `time.monotonic()`; `None`: never."""
        return None

    def given_positions(self) -> Positions:
        """What the client has to see, by the token that came with its request."""
        return {}

    def session_requested(self) -> None:
        """Called when a session of its unit is requested."""

    def unit_settled(self) -> None:
        """Called when the outcome is known, before the hooks that follow it."""

    def retry_forbidden(self) -> None:
        """Called when the unit must not be retried any more."""
