"""`db.session` as a dependency: what FastAPI sees of it, and messages for misuse."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import update_wrapper
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from ..errors import UsageError

__all__ = ["injectable"]

Method = TypeVar("Method", bound=Callable[..., Any])

_DEPENDENCY = "`session: Annotated[AsyncSession, Depends(db.session)]`"


class _NotASession(UsageError, AttributeError):
    """The dependency was used as if it was the session that it returns."""


class _Dependency:
    """The method `session()` of one database, as a callable object.

    Hides *request* from FastAPI, which would take it for a query parameter. The same
    object each time, so that `app.dependency_overrides` finds it.
    """

    __signature__ = inspect.Signature()

    def __init__(self, method: Callable[..., Awaitable[Any]], database: object) -> None:
        self._method = method
        self._database = database
        self.__wrapped__ = method
        """FastAPI looks for it in each request: to find it is faster than to fail."""
        self.__name__ = "session"
        self.__doc__ = method.__doc__

    async def __call__(self, request: object = None) -> Any:
        return await self._method(self._database, request)

    # In the repr of its coroutine, and in the warning for one that is not awaited.
    __call__.__qualname__ = "db.session: write Depends(db.session), or await this one"

    def __deepcopy__(self, memo: object) -> _Dependency:
        return self  # FastAPI copies the defaults of parameters

    def __repr__(self) -> str:
        return f"<the dependency {self._database!r}.session>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Session, name):
            raise AttributeError(f"{self!r} has no attribute {name!r}")
        raise _NotASession(
            "db.session is no session but the dependency that returns it, and has no "
            f"{name!r}: write {_DEPENDENCY} in an endpoint, db.current.{name} in what "
            "it calls, or `await db.session(request)` in Starlette"
        )


class _Injectable:
    """Descriptor of the method `session()`: `Depends(db.session)`."""

    def __init__(self, method: Callable[..., Awaitable[Any]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, database: Any, owner: type[object]) -> Any:
        if database is None:
            return _of_class(self._method, owner.__name__)
        found = vars(database)["session"] = _Dependency(self._method, database)
        return found


def injectable(method: Method) -> Method:
    made: Any = _Injectable(method)
    return made  # type: ignore[no-any-return]  # it is called in the same way


def _of_class(method: Callable[..., Awaitable[Any]], name: str) -> Any:
    async def session(self: Any = None, request: object = None) -> Any:
        if self is None:
            raise UsageError(
                f"{name}.session belongs to no database: make one, `db = {name}(url)`, "
                "and write Depends(db.session)"
            )
        return await method(self, request)

    update_wrapper(session, method)
    parameter = inspect.Parameter(
        "self", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None
    )
    hiding: Any = session
    hiding.__signature__ = inspect.Signature([parameter])
    del hiding.__wrapped__
    return session
