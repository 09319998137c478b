"""Gives an error to the exception handlers of the application, after its response."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["answer"]


async def answer(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Let the handlers of the application (or of its mounted one) answer *error*.

    Raises *error* where there is no handler for it, and always in an application that
    is not Starlette's: Starlette leaves its handlers in the scope.
    """
    if "starlette.exception_handlers" not in scope:
        raise error
    from starlette._exception_handler import wrap_app_handling_exceptions
    from starlette.requests import Request

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    # Private to Starlette, but FastAPI uses it as well.
    app = wrap_app_handling_exceptions(fail, Request(scope, receive, send))
    await app(scope, receive, send)
