"""A unit whose options are those of the route that serves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ._ending import CommitWhen
from ._twophase import Order, Together
from ._unit import UnitOfWork
from .errors import UsageError
from .options import NO_OPTIONS, TransactionOptions, asked, options_of
from .retry import RetryPolicy

if TYPE_CHECKING:
    from ._source import Source

__all__ = ["Defaults", "RoutedUnit", "Terms", "asked_by"]

Scope = MutableMapping[str, Any]
Defaults = (
    TransactionOptions
    | Mapping[str, TransactionOptions]
    | Callable[[Scope], TransactionOptions | None]
)
"""Options of the requests of an application: of all, by method, or by request.

.. versionadded:: 0.1
"""


class Terms(NamedTuple):
    """What the middleware was told about all its units."""

    commit_when: CommitWhen
    defaults: Callable[[Scope], TransactionOptions] | None
    retry: RetryPolicy
    order: Order | None = None
    """Set if its databases are committed in two phases."""


class RoutedUnit(UnitOfWork):
    """The unit of a request or of a WebSocket."""

    _irrevocable: str | None = "no message of a WebSocket is handled twice"
    _resolved: tuple[object, TransactionOptions, TransactionOptions]
    _resolved = (object(), NO_OPTIONS, NO_OPTIONS)

    def __init__(
        self,
        sources: Mapping[str, Source],
        parent: UnitOfWork | None,
        scope: Scope,
        terms: Terms,
    ) -> None:
        UnitOfWork.__init__(self, sources, parent)
        self._scope = scope
        self._terms = terms
        if terms.order is not None:
            self._together = Together(terms.order)

    @property
    def _options(self) -> TransactionOptions:
        """The endpoint's before those of its routers, and these before the default.

        Frameworks leave the endpoint in the scope once they have found it.
        """
        scope = self._scope
        endpoint = scope.get("endpoint")
        known, asked, options = self._resolved
        if known is not endpoint or asked is not self._asked:
            own = options_of(endpoint, scope.get("method", ""))
            defaults = self._terms.defaults
            options = self._asked if defaults is None else defaults(scope) | self._asked
            options = own if options is NO_OPTIONS else options | own
            self._resolved = (endpoint, self._asked, options)
        return options


def asked_by(given: Defaults | None) -> Callable[[Scope], TransactionOptions] | None:
    """Say in one way what the options of a request are, however they were *given*."""
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
    asked.attempts = asked.deadline = True  # it may, and be the first that does

    def by_request(scope: Scope) -> TransactionOptions:
        options = given(scope)
        if options is None:
            return NO_OPTIONS
        if not isinstance(options, TransactionOptions):
            raise UsageError(
                f"options={given!r} has given {options!r}; give TransactionOptions or "
                "None"
            )
        return options

    return by_request
