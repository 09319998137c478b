"""The options of a request: its endpoint's, its routers', its application's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .._twophase.order import CommitOrder
from ..errors import UsageError
from ..options import NO_OPTIONS, TransactionOptions, options_of
from ..outcome import CommitWhen
from ..retry import RetryPolicy
from .types import Scope

__all__ = ["Defaults", "MiddlewareConfig", "RouteOptions", "defaults_of"]

Defaults = (
    TransactionOptions
    | Mapping[str, TransactionOptions]
    | Callable[[Scope], TransactionOptions | None]
)
"""Options of the requests of an application: of all, by method, or by request.

.. versionadded:: 0.1
"""


class MiddlewareConfig(NamedTuple):
    """The arguments of the middleware, the same for all connections."""

    commit_when: CommitWhen
    defaults: Callable[[Scope], TransactionOptions] | None
    retry: RetryPolicy
    order: CommitOrder | None = None
    """Set if its databases are committed in two phases."""


class RouteOptions:
    """Looks up the options of one connection, known once it has been routed."""

    __slots__ = ("_config", "_endpoint", "_found", "_own", "_scope")

    def __init__(self, scope: Scope, config: MiddlewareConfig) -> None:
        self._scope = scope
        self._config = config
        self._endpoint: object = self
        self._own = self._found = NO_OPTIONS

    def find(self, own: TransactionOptions) -> TransactionOptions:
        """Merge the endpoint's, before *own* (its routers'), before the defaults.

        Frameworks leave the endpoint in the scope once they have found it.
        """
        scope = self._scope
        endpoint = scope.get("endpoint")
        if self._endpoint is not endpoint or self._own is not own:
            found, defaults = own, self._config.defaults
            if defaults is not None:
                found = defaults(scope) | own
            nearest = options_of(endpoint, scope.get("method", ""))
            self._found = nearest if found is NO_OPTIONS else found | nearest
            self._endpoint, self._own = endpoint, own
        return self._found


def defaults_of(given: Defaults | None) -> Callable[[Scope], TransactionOptions] | None:
    """A function from a scope to the options of a request, from what was *given*."""
    if given is None:
        return None
    if isinstance(given, TransactionOptions):
        return lambda scope: given
    if isinstance(given, Mapping):
        for method, options in given.items():
            if method != method.upper() or not isinstance(options, TransactionOptions):
                raise UsageError(
                    f"options[{method!r}] is {options!r}; give TransactionOptions by "
                    "method, such as 'GET'"
                )
        return lambda scope: given.get(scope.get("method", ""), NO_OPTIONS)
    if not callable(given):
        raise UsageError(
            f"options is {given!r}; give TransactionOptions, or a mapping of them by "
            "method, or a function from an ASGI scope to them"
        )

    def by_request(scope: Scope) -> TransactionOptions:
        options = given(scope)
        if options is None:
            return NO_OPTIONS
        if not isinstance(options, TransactionOptions):
            raise UsageError(
                f"options={given!r} has returned {options!r}; give TransactionOptions "
                "or None"
            )
        return options

    return by_request
