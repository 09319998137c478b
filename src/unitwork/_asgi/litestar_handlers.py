"""Gives an error to the exception handlers of a Litestar application.

Nothing of Litestar is imported: what is needed is in the scope.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from .types import Receive, Scope, Send

__all__ = ["answer_with", "find_handler"]

Handler: TypeAlias = Callable[[Any, Exception], Any]


def find_handler(error: Exception, scope: Scope) -> Handler | None:
    """The handler for *error* of the route in *scope*, or of its application.

    `None` if there is none, or if the application is not Litestar's.
    """
    app, route = scope.get("litestar_app"), scope.get("route_handler")
    if app is None:
        return None
    if route is None:
        return _look_up(error, app.exception_handlers)
    return _look_up(error, route.resolve_exception_handlers())


def _look_up(error: Exception, handlers: Mapping[Any, Handler]) -> Handler | None:
    """Look it up as Litestar does: by status, then by class; 500 stands for others."""
    status = getattr(error, "status_code", None)
    if status in handlers:
        return handlers[status]
    for kind in type(error).__mro__:
        if kind in handlers:
            return handlers[kind]
    return handlers.get(500) if status is None else None


async def answer_with(
    handler: Handler, error: Exception, scope: Scope, receive: Receive, send: Send
) -> None:
    """Send what *handler* returns for *error*, after the application's hooks."""
    app, route = scope["litestar_app"], scope.get("route_handler")
    for hook in app.after_exception:
        await hook(error, scope)
    request = app.request_class(scope=scope, receive=receive, send=send)
    response = handler(request, error)
    encoders = app.type_encoders if route is None else route.resolve_type_encoders()
    answer = response.to_asgi_response(None, request, type_encoders=encoders)
    await answer(scope, receive, send)
