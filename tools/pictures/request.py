"""The life of a unit in one request, as a real one was traced."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from unitwork import AsyncDatabase, DBSessionMiddleware, UnitOfWork
from unitwork.fastapi import unit_of_work

from .svg import Picture

__all__ = ["draw"]

_CLIENT, _APPLICATION, _DATABASE = 48, 200, 352
_STEP = 27
_INSERT = text("INSERT INTO item (name) VALUES ('lamp')")

Trace = list[tuple[str, str]]
"""Who did what: "client", "application", "send", "sql" or "pool"."""


def draw() -> str:
    trace = asyncio.run(_traced())
    picture = Picture(
        "The life of a unit of work in a request", "; ".join(what for _, what in trace)
    )
    rows = [entry for entry in trace if entry[0] != "pool"]
    bottom = 52 + _STEP * len(rows)
    for x, name in (
        (_CLIENT, "client"),
        (_APPLICATION, "application"),
        (_DATABASE, "database"),
    ):
        picture.text(x, 24, name, "b", "middle")
        picture.path([(x, 34), (x, bottom - 10)], "thin")
    _connections(picture, trace)
    y = 52
    for who, what in rows:
        _row(picture, y, who, what)
        y += _STEP
    return picture.render(bottom)


def _connections(picture: Picture, trace: Trace) -> None:
    """Draw a bar for each time in which a connection is checked out."""
    y, taken = 52, 0
    for who, what in trace:
        if who != "pool":
            y += _STEP
        elif what == "checkout":
            taken = y
        else:
            height = y - taken - _STEP + 24
            picture.rect(_DATABASE - 5, taken - 12, 10, height, "blues", 3)


def _row(picture: Picture, y: float, who: str, what: str) -> None:
    middle = (_CLIENT + _APPLICATION) / 2
    if who == "application":
        width = 7 * len(what) + 16
        picture.rect(_APPLICATION - width / 2, y - 12, width, 20, "box")
        picture.text(_APPLICATION, y + 2, what, "", "middle")
    elif who == "sql":
        kind = {"COMMIT": "sql b green"}.get(what, "sql")
        picture.path([(_APPLICATION, y), (_DATABASE - 6, y)])
        picture.text((_APPLICATION + _DATABASE) / 2, y - 5, what, kind, "middle")
    elif who == "client":
        picture.path([(_CLIENT, y), (_APPLICATION, y)])
        picture.text(middle, y - 5, what, "", "middle")
    else:
        picture.path([(_APPLICATION, y), (_CLIENT, y)])
        picture.text(middle, y - 5, what, "b", "middle")


async def _traced() -> Trace:
    trace: Trace = []
    with TemporaryDirectory() as folder:
        db = AsyncDatabase(f"sqlite+aiosqlite:///{Path(folder, 'items.db')}")
        async with db.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE item (name TEXT)"))
        app = _application(db, trace)
        _listen(db, trace)
        transport = ASGITransport(_noting(app, trace))
        async with AsyncClient(
            transport=transport, base_url="http://pictures"
        ) as client:
            await client.post("/")
        await db.dispose()
    return trace


def _application(db: AsyncDatabase[AsyncSession], trace: Trace) -> FastAPI:
    def note(what: str) -> None:
        trace.append(("application", what))

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=db)

    @app.post("/")
    async def endpoint(
        session: Annotated[AsyncSession, Depends(db.session)],
        unit: Annotated[UnitOfWork, Depends(unit_of_work)],
        tasks: BackgroundTasks,
    ) -> StreamingResponse:
        note("endpoint")
        unit.before_commit(note, "before_commit hooks")
        unit.on_commit(note, "on_commit hooks")
        tasks.add_task(note, "background task")
        await session.execute(_INSERT)

        async def body() -> AsyncIterator[str]:
            yield "first chunk"
            await session.execute(_INSERT)

        return StreamingResponse(body(), background=tasks)

    return app


def _listen(db: AsyncDatabase[AsyncSession], trace: Trace) -> None:
    engine = db.engine.sync_engine

    def sent(connection: Any, cursor: Any, sql: str, *rest: Any) -> None:
        trace.append(("sql", sql.split()[0]))

    event.listen(engine, "before_cursor_execute", sent)
    event.listen(engine, "commit", lambda *_: trace.append(("sql", "COMMIT")))
    event.listen(engine, "checkout", lambda *_: trace.append(("pool", "checkout")))
    event.listen(engine, "checkin", lambda *_: trace.append(("pool", "checkin")))


def _noting(app: Any, trace: Trace) -> Any:
    async def noting(scope: Any, receive: Any, send: Any) -> None:
        async def noted(message: Any) -> None:
            trace.append(("send", _name_of(message)))
            await send(message)

        trace.append(("client", "POST /"))
        await app(scope, receive, noted)

    return noting


def _name_of(message: Any) -> str:
    if message["type"] == "http.response.start":
        return f"{message['status']}, headers"
    return "a chunk" if message.get("more_body") else "last chunk"
