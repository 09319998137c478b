"""What PostgreSQL is sent for each kind of block inside a request, as it was traced."""

import asyncio
import os
from contextlib import suppress
from typing import Annotated, Any, cast

import psycopg
from fastapi import Depends, FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import event, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession

from unitwork import AsyncDatabase, DBSessionMiddleware
from unitwork._unit.nested import Nested

from .svg import Picture

__all__ = ["draw"]

_KINDS = ("own", "savepoint", "join")
_FAILS = {"block": "the block raises", "request": "the request raises"}
_COLUMN, _STEP = 194, 21

Trace = list[tuple[int, str]]
"""The connection and the statement; connection 0: the block begins or ends."""


def draw() -> str:
    runs = asyncio.run(_Runs().all())
    picture = Picture(
        "Three kinds of transaction() blocks inside a request",
        "; ".join(
            f"{kind}, {_FAILS[fails]}: "
            + ", ".join(f"{sql} on connection {n}" for n, sql in trace if n)
            + f", {result}"
            for (kind, fails), (trace, result) in runs.items()
        ),
    )
    for column, title in enumerate(_FAILS.values()):
        picture.text(10 + _COLUMN * column, 22, title, "b")
    top = 34
    for kind in _KINDS:
        both = [runs[kind, fails] for fails in _FAILS]
        rows = max(len([n for n, _ in trace if n]) for trace, _ in both)
        picture.text(10, top + 16, f'nested="{kind}"', "sql b blue")
        height = rows * _STEP + 42
        for column, (trace, result) in enumerate(both):
            x = 8 + _COLUMN * column
            picture.rect(x, top + 24, _COLUMN - 6, height, "")
            _panel(picture, x + 8, top + 44, trace)
            picture.text(x + 8, top + 24 + height - 10, result, "soft")
        top += height + 34
    return picture.render(top)


def _panel(picture: Picture, x: float, y: float, trace: Trace) -> None:
    begin, shapes = y, []
    for connection, sql in trace:
        if connection:
            shapes.append((connection, sql, y))
            y += _STEP
        elif sql == "block begins":
            begin = y
        else:
            width = _COLUMN - 18
            picture.rect(x - 2, begin - 15, width, y - begin, "blues", 4)
    for connection, sql, y in shapes:
        kind = {"COMMIT": " b green", "ROLLBACK": " b red"}
        picture.dot(x + 9, y - 4, 7.5, "box")
        picture.text(x + 9, y, str(connection), "sql", "middle")
        picture.text(x + 23, y, sql, "sql" + kind.get(sql, ""))


class _Runs:
    """Requests to an application on PostgreSQL, and what each of them has sent."""

    async def all(self) -> dict[tuple[str, str], tuple[Trace, str]]:
        server = os.environ["UNITWORK_TEST_POSTGRESQL"]
        name = f"unitwork_pictures_{os.getpid()}"
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
        url = make_url(server).set(database=name, drivername="postgresql+asyncpg")
        self.db = AsyncDatabase(url)
        self.trace: Trace = []
        self.numbers: dict[int, int] = {}
        self._listen()
        try:
            return {
                (kind, fails): await self._one(kind, fails)
                for kind in _KINDS
                for fails in _FAILS
            }
        finally:
            await self.db.dispose()
            with psycopg.connect(server, autocommit=True) as admin:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    async def _one(self, kind: str, fails: str) -> tuple[Trace, str]:
        async with self.db.engine.begin() as connection:
            await connection.execute(text("DROP TABLE IF EXISTS item"))
            await connection.execute(text("CREATE TABLE item (name TEXT)"))
        await self.db.dispose()
        self.trace, self.numbers = [], {}
        transport = ASGITransport(self._application(), raise_app_exceptions=False)
        async with AsyncClient(transport=transport, base_url="http://nested") as client:
            reply = await client.post(f"/{kind}/{fails}")
        trace, self.trace = self.trace, []
        async with self.db.engine.connect() as connection:
            rows = await connection.scalars(text("SELECT name FROM item ORDER BY name"))
            stored = ", ".join(rows) or "nothing"
        return trace, f"{reply.status_code}; stored: {stored}"

    def _listen(self) -> None:
        def note(connection: Any, sql: str) -> None:
            driver = id(connection.connection.dbapi_connection)
            number = self.numbers.setdefault(driver, len(self.numbers) + 1)
            self.trace.append((number, sql))

        def statement(connection: Any, cursor: Any, sql: str, *rest: Any) -> None:
            if sql.startswith("INSERT"):
                note(connection, f"INSERT {sql.split(chr(39))[1]}")

        engine = self.db.engine.sync_engine
        event.listen(engine, "before_cursor_execute", statement)
        event.listen(engine, "begin", lambda c: note(c, "BEGIN"))
        event.listen(engine, "savepoint", lambda c, _: note(c, "SAVEPOINT"))
        event.listen(engine, "release_savepoint", lambda c, *_: note(c, "RELEASE"))
        event.listen(engine, "rollback_savepoint", lambda c, *_: note(c, "ROLLBACK TO"))
        event.listen(engine, "commit", lambda c: note(c, "COMMIT"))
        event.listen(engine, "rollback", lambda c: note(c, "ROLLBACK"))

    def _application(self) -> FastAPI:
        app = FastAPI()
        app.add_middleware(DBSessionMiddleware, db=self.db)
        db = self.db

        @app.post("/{kind}/{fails}", status_code=201)
        async def endpoint(
            kind: str, fails: str, session: Annotated[AsyncSession, Depends(db.session)]
        ) -> None:
            await session.execute(text("INSERT INTO item VALUES ('order')"))
            with suppress(LookupError):
                await self._block(cast(Nested, kind), fails)
            if fails == "request":
                raise LookupError

        return app

    async def _block(self, kind: Nested, fails: str) -> None:
        trace = self.trace
        trace.append((0, "block begins"))
        try:
            async with self.db.transaction(nested=kind) as session:
                await session.execute(text("INSERT INTO item VALUES ('audit')"))
                if fails == "block":
                    raise LookupError
        finally:
            trace.append((0, "block ends"))
