"""The error in place of a response, and who answers it: the application's handlers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from .litestar_handlers import answer_with, find_handler
from .problems import log_answer, problem_of
from .types import Message

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

__all__ = ["Failure", "answers_itself"]

_STARLETTE = "starlette._exception_handler"


class Failure:
    """The *error* that a client gets in place of the response of an application.

    unitwork's own errors answer for themselves where there is no handler. All others
    are raised then.
    """

    __slots__ = ("_handlers_left", "_request", "_send", "_started", "error")

    def __init__(self, error: Exception, *, handlers_left: bool = False) -> None:
        self.error = error
        self._handlers_left = handlers_left
        """Whether it has left the application's handlers already."""
        self._request: Request | None = None
        """The application's own, in whose scope its handlers are, if it was found."""
        self._send: Send
        self._started = False

    def find_request(self, unwound_by: BaseException) -> None:
        """Find the request that has the handlers, in the frames of *unwound_by*.

        Not in those of the error: it may have the frames of earlier requests, too.
        """
        self._request = _request_left_by(unwound_by)

    async def answer(
        self, scope: Scope, receive: Receive, send: Send, *, answer_errors: bool
    ) -> None:
        self._send = send
        error = self.error
        if not self._handlers_left:
            try:
                await self._let_handlers_answer(scope, receive)
            except Exception as raised:
                if raised is not error or self._started:
                    raise
            else:
                return
        own_scope = scope if self._request is None else self._request.scope
        if not answer_errors or not answers_itself(error, own_scope):
            raise error
        await _answer_itself(error, own_scope, send)

    async def _let_handlers_answer(self, scope: Scope, receive: Receive) -> None:
        """Look a handler up as Starlette or Litestar does; raise without one.

        And always in an application of another framework.
        """
        error = self.error
        if (handler := find_handler(error, scope)) is not None:
            await answer_with(handler, error, scope, receive, self._note_start)
            return
        if self._request is None and "starlette.exception_handlers" not in scope:
            raise error
        from starlette._exception_handler import wrap_app_handling_exceptions
        from starlette.requests import Request

        async def fail(scope: Scope, receive: Receive, send: Send) -> None:
            raise error

        # Private to Starlette, but FastAPI uses it as well.
        request = self._request or Request(scope, receive, self._note_start)
        app = wrap_app_handling_exceptions(fail, request)
        await app(request.scope, receive, self._note_start)

    async def _note_start(self, message: Message) -> None:
        self._started = True
        await self._send(message)


def answers_itself(error: BaseException, scope: Mapping[str, Any]) -> bool:
    """Whether it is an error that unitwork answers, and no handler of all errors."""
    if problem_of(error) is None:
        return False
    app_handlers = getattr(scope.get("app"), "exception_handlers", None) or {}
    return Exception not in app_handlers and 500 not in app_handlers


async def _answer_itself(error: Exception, scope: Scope, send: Send) -> None:
    problem = problem_of(error)
    assert problem is not None
    log_answer(error, problem.status, scope)
    await problem.send(send)


def _request_left_by(error: BaseException) -> Request | None:
    """The innermost request of Starlette whose exception handlers *error* has passed.

    The scope of the middleware is not the application's where an application further in
    has copied it, and only the frames lead to the copy.
    """
    found = None
    for frame in _frames(error):
        code = frame.f_code
        if code.co_name == "wrapped_app" and (
            frame.f_globals.get("__name__") == _STARLETTE
        ):
            found = frame.f_locals.get("conn")
    return found


def _frames(error: BaseException) -> Iterator[FrameType]:
    """Those that *error* has left, or the errors in a group: the outermost first."""
    entry = error.__traceback__
    while entry is not None:
        yield entry.tb_frame
        entry = entry.tb_next
    inner: tuple[Any, ...] = getattr(error, "exceptions", ())
    for each in inner:
        if isinstance(each, BaseException):
            yield from _frames(each)
