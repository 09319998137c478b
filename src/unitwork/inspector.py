"""`Inspector`: a page that shows every unit of work, alive and in the past."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from sqlalchemy.engine import URL

from ._asgi.types import Receive, Scope, Send
from ._inspector.access import is_allowed
from ._inspector.assets import asset, shell
from ._inspector.recorder import KINDS, Recorder
from ._inspector.requested_view import path_below, requested_view
from ._inspector.response import Response, not_found, send_response
from ._inspector.views import Views
from ._session.database_core import DatabaseCore
from ._sources import database_of
from ._unit.database_base import core_of
from .errors import UsageError

if TYPE_CHECKING:
    from starlette.requests import Request

    from ._sources import Source

__all__ = ["Inspector"]


class Inspector:
    """An ASGI application with pages about units: `app.mount("/units", Inspector(db))`.

    It shows the units that are open and the connections of the pools; the time of each
    of the last units, *keep* of them, as a bar; and counts of their outcomes. Each view
    is there as JSON, too. It changes nothing. It starts to record when it is made, and
    ends with `close()`. Each process of a server shows its own units.

    *db* is a database or a sequence of them, as for the middleware. *allow* gets the
    request, Starlette's, and returns whether its client may look, or an awaitable of
    that. Without it only clients on the same machine may, and none through a proxy. The
    others get what the application answers where there is nothing: 404. An *allow* that
    raises, or returns anything but a `bool`, is logged, and allows nothing.
    *show_sql* shows the text of statements, with `?` in place of the values in it;
    their parameters are never shown.

    Raises `UsageError` for arguments that can't work. Safe to use from several tasks;
    for one event loop at a time.

    .. versionadded:: 0.2
    """

    def __init__(
        self,
        db: Source | Sequence[Source],
        *,
        allow: Callable[[Request], bool | Awaitable[bool]] | None = None,
        keep: int = 200,
        show_sql: bool = False,
    ) -> None:
        if allow is not None and not callable(allow):
            raise UsageError(f"allow must be callable, this is {allow!r}")
        if not isinstance(keep, int) or not 0 < keep <= 10_000:
            raise UsageError(f"keep is {keep!r}; give a number of units, 1 to 10000")
        self._allow = allow
        databases = _databases(db)
        by_name = {each.name: each for each in databases}
        self._recorder = recorder = Recorder(
            keep, lambda name: _dialect_of(by_name[name])
        )
        self._views = Views(databases, recorder, show_sql=show_sql)
        self._stop = [
            each.observers.add(recorder, KINDS, shows_sql=show_sql)
            for each in databases
        ]

    def close(self) -> None:
        """Stop recording. What is recorded can still be looked at."""
        for stop in self._stop:
            stop()
        self._stop = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI says."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._serve(scope, send)
        else:
            raise UsageError("mount the inspector in an application; it has no start")

    async def _serve(self, scope: Scope, send: Send) -> None:
        root, path = path_below(scope)
        self._recorder.mounted_at(root)
        if not await is_allowed(scope, self._allow):
            await not_found(scope, send)
            return
        method = scope["method"]
        if method not in ("GET", "HEAD"):
            status = HTTPStatus.METHOD_NOT_ALLOWED
            response = Response(b"", status=status, headers={"allow": "GET, HEAD"})
        elif not path:
            there = root.rpartition("/")[2] + "/"
            status = HTTPStatus.TEMPORARY_REDIRECT
            response = Response(b"", status=status, headers={"location": there})
        else:
            found = await self._answer(scope, path.removeprefix("/"))
            if found is None:
                await not_found(scope, send)
                return
            response = found
        await send_response(response, send, is_head=method == "HEAD")

    async def _answer(self, scope: Scope, path: str) -> Response | None:
        if path.startswith("assets/"):
            return asset(path.removeprefix("assets/"))
        headers = dict(scope["headers"])
        wanted = requested_view(path, headers.get(b"accept", b"").decode("latin-1"))
        if wanted is None:
            return None
        if not wanted.is_json:
            return shell(wanted.view, wanted.depth)
        if wanted.view == "live":
            return await self._views.live()
        if wanted.view == "unit":
            return self._views.unit(wanted.number)
        if wanted.view == "outcomes":
            return self._views.outcomes()
        query = scope.get("query_string", b"").decode("latin-1")
        return self._views.timeline(dict(parse_qsl(query)))


def _databases(db: Any) -> list[DatabaseCore]:
    is_one = isinstance(db, str | URL) or not isinstance(db, Sequence)
    found = [core_of(database_of(each)) for each in ([db] if is_one else db)]
    if not found:
        raise UsageError("db is empty; give at least one database")
    if len({each.name for each in found}) < len(found):
        raise UsageError("two databases have one name; give each its own, and once")
    return found


def _dialect_of(database: DatabaseCore) -> str:
    engine = database.known_engine
    return "" if engine is None else engine.dialect.name
