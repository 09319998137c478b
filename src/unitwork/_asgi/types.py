"""The types of ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from types import CodeType
from typing import Any

__all__ = ["ASGIApp", "Message", "Receive", "Scope", "Send", "is_asgi"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


def is_asgi(code: CodeType) -> bool:
    """Whether a function has the parameters of an ASGI application, as all name them.

    The names alone, as it is called for frames.
    """
    names = code.co_varnames[: code.co_argcount]
    return names[-3:] == ("scope", "receive", "send")
