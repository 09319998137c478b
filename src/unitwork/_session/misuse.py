"""What to write in place of what SQLAlchemy, a driver or Python has refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .unit_session import UnitSession

__all__ = ["CALLED", "OVERRIDDEN", "remedy_for"]

CALLED = (
    "a session was called: db.current and request.state.db are the session itself, and "
    "not a function that returns it; leave out the ()"
)

_ONE_TASK = (
    "a session serves one task at a time; in asyncio.gather() and in tasks of your own "
    "give each its own: `async with db.transaction() as session:`"
)
_ONE_THREAD = (
    "a session serves one thread at a time; in threads of your own give each its own: "
    "`with db.transaction() as session:`"
)
OVERRIDDEN = (
    "the session of db.override() serves all requests, one after the other: make the "
    "next request of the test once the one before has ended"
)
_LOAD = (
    "an attribute that is not loaded can't be loaded without `await`: load it in time, "
    "with selectinload() in the statement or `await session.refresh(item, ['name'])`"
)
_DETACHED = (
    "its unit of work has ended: load what the response needs before, with "
    "selectinload() in the statement or session.refresh(item, ['name'])"
)
_AWAIT = (
    "an `await` is missing before a call, in an `async def`: write `await "
    "session.execute(...)`, and `(await session.execute(...)).scalars()` to go on with "
    "the result"
)
_BLOCK = (
    "a coroutine is no block: write `async with db.transaction() as session:`; in an "
    "endpoint the session is a parameter, by Depends(db.session)"
)
_NOT_AWAITED = (
    "leave that `await` out: add(), add_all() and the methods of a result (all(), "
    "first(), scalars()) are not awaited. A block is `async with db.transaction() as "
    "session:`"
)
_QUERY = (
    "an AsyncSession has no query(): write `(await session.scalars(select(...))).all()`"
)
_NO_AWAIT = (
    "the session of a Database is sync: leave `await` out, in a `def` endpoint, or use "
    "AsyncDatabase"
)
_NO_LOOP = (
    "an AsyncSession works on the event loop only: make the endpoint `async def`, or "
    "use Database and its Session in a `def` endpoint"
)
_NO_AWAITABLE = r"'?(NoneType|list|\w*Result|AsyncTransaction)\b.*"
"""Of `add()`, `all()`, `scalars()` and `db.transaction()`."""
_AWAITED = r"(can't be used in 'await' expression|object can't be awaited)"
_SHARED = (
    r"provisioning a new connection|concurrent operations|already flushing|"
    r"can't be called here|another operation (\(.*\) )?is in progress"
)
_REMEDIES = [
    (r"is not bound to a Session; (lazy load|attribute refresh)", _DETACHED),
]
_REMEDIES_OF_ASYNC = [
    (_SHARED, _ONE_TASK),
    (r"no running event loop", _NO_LOOP),
    (r"greenlet_spawn has not been called", _LOAD),
    (r"'coroutine' object does not support the asynchronous context", _BLOCK),
    (r"'coroutine'|, got coroutine|type coroutine|<coroutine object AsyncSe", _AWAIT),
    (r"'Async\w*' object has no attribute 'query'", _QUERY),
    (_NO_AWAITABLE + _AWAITED, _NOT_AWAITED),
]
_REMEDIES_OF_SYNC = [(_SHARED, _ONE_THREAD), (_AWAITED, _NO_AWAIT)]


def remedy_for(error: BaseException, sessions: Collection[UnitSession]) -> str | None:
    """What to write where *error* shows a usual mistake with one of *sessions*."""
    text = str(error)
    for pattern, remedy in _remedies(sessions):
        if re.search(pattern, text):
            is_overridden = not all(session.owned for session in sessions)
            return OVERRIDDEN if pattern is _SHARED and is_overridden else remedy
    return None


def _remedies(sessions: Collection[UnitSession]) -> Iterator[tuple[str, str]]:
    """Yield what the errors of SQLAlchemy, and those of Python in this case, show."""
    yield from _REMEDIES
    if not all(session.is_async for session in sessions):
        yield from _REMEDIES_OF_SYNC
    if any(session.is_async for session in sessions):
        yield from _REMEDIES_OF_ASYNC
