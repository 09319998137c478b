"""The options of a request: its endpoint's, its routers', its application's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import CodeType
from typing import NamedTuple

from .._callables import check_callable, returned_plainly
from .._twophase.order import CommitOrder
from ..errors import UsageError
from ..options import NO_OPTIONS, EndpointMark, TransactionOptions, options_of
from ..outcome import CommitWhen
from ..retry import RetryPolicy
from .carriers import TokenCarrier
from .server_timing import ServerTiming
from .types import Scope, is_asgi

__all__ = [
    "Defaults",
    "FoundOptions",
    "MiddlewareConfig",
    "defaults_of",
    "is_endpoint",
    "may_retry",
    "merge_options",
]

_METHODS = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
    *("OPTIONS", "TRACE", "CONNECT", "QUERY"),
)

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
    answer_errors: bool = True
    may_retry: bool = False
    """Whether its options may set more than one attempt: routes may as well."""
    has_replicas: bool = False
    """Whether a request may be run again, as a replica that it has used has failed."""
    carrier: TokenCarrier | None = None
    """Brings the token of a client's writes back, for databases with replicas."""
    server_timing: ServerTiming | None = None
    """Whether the response to a request has the header `Server-Timing`."""


FoundOptions = tuple[object, TransactionOptions, TransactionOptions]
"""The endpoint, the options of its routers, and those of the request."""


def merge_options(
    scope: Scope,
    config: MiddlewareConfig,
    own: TransactionOptions,
    called: EndpointMark | None = None,
) -> TransactionOptions:
    found = own
    if config.defaults is not None:
        found = config.defaults(scope) | own
    if called is not None:
        nearest = called.options
    else:
        nearest = options_of(scope.get("endpoint"), scope.get("method", ""))
    return nearest if found is NO_OPTIONS else found | nearest


def is_endpoint(found: object) -> bool:
    """Whether `scope["endpoint"]` is one, and not the application of a `Mount`."""
    if isinstance(found, type | partial):
        return True
    code: CodeType | None = getattr(found, "__code__", None)
    return code is not None and not is_asgi(code)


def may_retry(given: Defaults | None) -> bool:
    """Whether options *given* for all requests may set more than one attempt."""
    if isinstance(given, TransactionOptions):
        return (given.attempts or 1) > 1
    if isinstance(given, Mapping):
        return any(map(may_retry, given.values()))
    return given is not None


def defaults_of(given: Defaults | None) -> Callable[[Scope], TransactionOptions] | None:
    """A function from a scope to the options of a request, from what was *given*."""
    if given is None:
        return None
    if isinstance(given, TransactionOptions):
        return lambda scope: given
    if isinstance(given, Mapping):
        for method, options in given.items():
            if method not in _METHODS:
                raise UsageError(
                    f"options has the method {method!r}; give one of "
                    f"{', '.join(_METHODS)}, or a function from an ASGI scope to "
                    "TransactionOptions"
                )
            if not isinstance(options, TransactionOptions):
                raise UsageError(
                    f"options[{method!r}] is {options!r}; give TransactionOptions"
                )
        return lambda scope: given.get(scope.get("method", ""), NO_OPTIONS)
    if not callable(given):
        raise UsageError(
            f"options is {given!r}; give TransactionOptions, or a mapping of them by "
            "method, or a function from an ASGI scope to them"
        )

    check_callable("options", given)

    def by_request(scope: Scope) -> TransactionOptions:
        options: object = given(scope)
        if options is None:
            return NO_OPTIONS
        if not isinstance(options, TransactionOptions):
            returned_plainly("options", options)
            raise UsageError(
                f"options={given!r} has returned {options!r}; give TransactionOptions "
                "or None"
            )
        return options

    return by_request
