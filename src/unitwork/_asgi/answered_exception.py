"""Which exception a message answers: one that has left an ASGI application."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FrameType

from .._error_contexts import with_contexts
from .connection import Connection
from .state import State
from .types import is_asgi

__all__ = ["answered_exception"]


def answered_exception(
    connection: Connection, before: BaseException | None
) -> BaseException | None:
    """The exception that the message which is being sent (or received) answers.

    Of those that are being handled, down to the one *before* the request, it is one
    that has left an ASGI application: that of a framework, whose exception handlers
    send from inside its `except` block, or that of a middleware. An exception that an
    endpoint, or an application without a framework, handles by itself has not.
    """
    if (handled := sys.exception()) is None:
        return None
    for error in with_contexts(handled):
        if error is before:
            break
        if _has_left_an_application(error, connection):
            return error
    return None


def _has_left_an_application(error: BaseException, connection: Connection) -> bool:
    # The first frame is the one that has caught it.
    entry = error.__traceback__ and error.__traceback__.tb_next
    while entry is not None:
        if _runs_an_application(entry.tb_frame, connection):
            return True
        entry = entry.tb_next
    return False


def _runs_an_application(frame: FrameType, connection: Connection) -> bool:
    if not is_asgi(frame.f_code):
        return False
    # An exception object that is raised again has the frames of earlier requests, too.
    scope = frame.f_locals.get("scope")
    state = scope.get("state") if isinstance(scope, Mapping) else None
    if type(state) is not State:
        return True
    each = state.provider
    while each is not None and each is not connection:
        each = each.outer
    return each is not None
