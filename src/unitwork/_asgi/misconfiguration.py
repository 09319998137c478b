"""Wrong arguments of the middleware: the server does not start, and says why."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import wraps
from typing import Any, NoReturn, TypeVar

from .._concurrency.worker import on_event_loop
from ..errors import UsageError
from .types import Receive, Scope, Send

__all__ = ["refuse_to_serve", "reported_at_start"]

Init = TypeVar("Init", bound=Callable[..., None])

_WRITE = (
    "write `app.add_middleware(DBSessionMiddleware, db=db)`, where db is a Database, "
    "an AsyncDatabase, a sessionmaker, an engine or a URL, or a list of these"
)
_IN_PLACE_OF = {
    "database": "db=db",
    "db_url": "db=url",
    "url": "db=url",
    "database_url": "db=url",
    "custom_engine": "db=engine",
    "engine": "db=engine",
    "sessionmaker": "db=sessionmaker",
    "session_maker": "db=sessionmaker",
    "session_factory": "db=sessionmaker",
    "commit_on_exit": "nothing, as a success commits, or commit_when=...",
    "engine_args": "db=Database(url, pool_size=...), with the options of the engine",
    "session_args": "db=Database(url, session_options={...})",
}
"""What the arguments of other libraries' middleware are here."""


def reported_at_start(init: Init) -> Init:
    """Let the `__init__` of a middleware keep a `UsageError` until the server starts.

    Starlette makes its middleware inside the first call, the lifespan. Servers take an
    exception there for an application without a lifespan, and go on. Outside of an
    event loop the error is raised at once. It also replaces the `TypeError` for
    arguments that do not fit.
    """
    signature = inspect.signature(init)

    @wraps(init)
    def init_or_keep(self: Any, *args: Any, **options: Any) -> None:
        self.misconfigured = None
        try:
            _check(signature, args, options)
            init(self, *args, **options)
        except UsageError as error:
            if not on_event_loop():
                raise
            self.misconfigured = error

    made: Any = init_or_keep
    return made  # type: ignore[no-any-return]  # of the same signature


async def refuse_to_serve(
    error: UsageError, scope: Scope, receive: Receive, send: Send
) -> NoReturn:
    """Fail the start with the message of *error*; raise it, then and in each request.

    To raise it after that message is what Starlette does; its TestClient expects it.
    """
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": str(error)})
    raise error.with_traceback(None)


def _check(
    signature: inspect.Signature, args: Sequence[object], options: Mapping[str, object]
) -> None:
    for name in options:
        if name not in signature.parameters:
            raise UsageError(_no_such_argument(name, list(signature.parameters)[2:]))
    try:
        signature.bind(None, *args, **options)
    except TypeError as error:
        raise UsageError(f"DBSessionMiddleware: {error}; {_WRITE}") from None


def _no_such_argument(name: str, arguments: list[str]) -> str:
    found = f"DBSessionMiddleware has no argument {name!r}"
    if name in _IN_PLACE_OF:
        return f"{found}: in its place write {_IN_PLACE_OF[name]}; {_WRITE}"
    if close := get_close_matches(name, arguments, 1):
        return f"{found}; did you mean {close[0]!r}?"
    return f"{found}; it has {', '.join(arguments)}"
