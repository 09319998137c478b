"""Two databases of one application, each behind a proxy, that commit together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from fastapi import FastAPI
from sqlalchemy import create_engine, make_url
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.flavours import (
    FLAVOURS,
    MARIADB,
    Flavour,
    Observer,
    connect_mariadb,
    kind_of,
)
from support.models import create_tables
from support.proxy import Line, Proxy
from unitwork import DBSessionMiddleware, UnitOfWork, current_unit
from unitwork._twophase.order import CommitOrder
from unitwork._unit.database_base import core_of

PREPARE = (b"PREPARE TRANSACTION", b"XA PREPARE")
COMMIT = (b"COMMIT PREPARED", b"XA COMMIT")


@contextmanager
def another_database(url: str) -> Iterator[str]:
    """A second database on the server of *url*, with the tables of the tests."""
    server = make_url(url)
    made = server.set(database=f"{server.database}_second")
    backend = server.get_backend_name()

    def do(sql: str) -> None:
        if backend == "mysql":
            with connect_mariadb(server) as line:
                line.query(sql)
        else:
            plain = server.set(drivername="postgresql").render_as_string(False)
            with psycopg.connect(plain, autocommit=True) as connection:
                connection.execute(sql)

    do(f"CREATE DATABASE {made.database}")
    driver = "mysql+pymysql" if backend == "mysql" else "postgresql+psycopg"
    engine = create_engine(made.set(drivername=driver))
    create_tables(engine)
    engine.dispose()
    yield made.render_as_string(hide_password=False)
    force = "" if backend == "mysql" else " WITH (FORCE)"
    do(f"DROP DATABASE {made.database}{force}")


class Trapped(Proxy):
    """A proxy with the same trap on each connection."""

    trap: Trap | None = None

    def _accept(self) -> asyncio.Protocol:
        line = Line(self)
        line.trap = self.trap
        return line.client


class Trap:
    """Springs once, when a client sends one of the *words*, or the answer to them.

    *on_answer*: what they ask for is done, and only its answer is caught.
    """

    def __init__(
        self,
        words: tuple[bytes, ...],
        act: Callable[[Line], Any],
        *,
        on_answer: bool,
        is_postgresql: bool,
    ) -> None:
        self._is_postgresql = is_postgresql
        self._words = words
        self._act = act
        self._on_answer = on_answer
        self._armed = True
        self._sent = False

    def sent(self, line: Line, data: bytes) -> bytes:
        if self._armed and any(word in data for word in self._words):
            self._sent = True
            if not self._on_answer:
                return self._spring(line)
        return data

    def received(self, line: Line, data: bytes) -> bytes:
        if not self._armed or not self._sent or not self._on_answer:
            return data
        tag = self._words[0] + b"\0"  # PostgreSQL says what it has done; MariaDB, "OK"
        if self._is_postgresql and tag not in data:
            return data
        return self._spring(line)

    def _spring(self, line: Line) -> bytes:
        self._armed = False
        self._act(line)
        return b""


@dataclass
class Side:
    """One of the two."""

    flavour: Flavour
    """Through the proxy."""
    proxy: Trapped
    direct: str

    @property
    def name(self) -> str:
        return str(self.flavour.db.name)

    @property
    def observer(self) -> Observer:
        return Observer(self.direct)

    @property
    def is_mariadb(self) -> bool:
        return self.flavour.name in MARIADB

    def prepared(self) -> list[str]:
        if self.is_mariadb:
            return sorted(row[3].decode() for row in self.observer._query("XA RECOVER"))
        return [row[0] for row in self.observer._query(_PREPARED)]

    def trap(
        self,
        words: tuple[bytes, ...],
        act: Callable[[Line], Any],
        *,
        on_answer: bool = False,
    ) -> None:
        """Set a trap on each connection, those to come as well."""
        is_postgresql = not self.is_mariadb
        trap = Trap(words, act, on_answer=on_answer, is_postgresql=is_postgresql)
        self.proxy.trap = trap
        for line in self.proxy.lines.values():
            line.trap = trap


_PREPARED = """
SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid
"""


@dataclass
class Pair:
    first: Side
    second: Side
    mortal: Any = None
    """The process that is killed in the middle, a `support.mortals.Mortal`."""
    units: list[UnitOfWork] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.first, self.second

    @property
    def databases(self) -> list[Any]:
        return [side.flavour.db for side in self.sides]

    def seen(self) -> tuple[list[str], list[str]]:
        return self.first.observer.names(), self.second.observer.names()

    def prepared(self) -> list[str]:
        """Those of this pair: MariaDB lists them for the whole server."""
        order = CommitOrder([core_of(database) for database in self.databases])
        ours = f"unitwork-{order.fingerprint}-"
        names = {name for side in self.sides for name in side.prepared()}
        return sorted(name for name in names if name.startswith(ours))

    def app(self, *bodies: Callable[[Session], Any] | None, **options: Any) -> FastAPI:
        """Serve an endpoint that does *bodies*, one in each database."""
        app = FastAPI()
        options = {"twophase": True, "answer_errors": False, **options}
        app.add_middleware(DBSessionMiddleware, db=self.databases, **options)

        @app.post("/")
        async def endpoint() -> None:
            unit = current_unit()
            self.units.append(unit)
            for kind in ("on_commit", "on_rollback", "on_unknown"):
                getattr(unit, kind)(self.hooks.append, kind)
            for side, body in zip(self.sides, bodies, strict=True):
                if body is not None:
                    await side.flavour.do(await side.flavour.db.session(), body)

        return app

    async def post(
        self, *bodies: Callable[[Session], Any] | None, **options: Any
    ) -> Reply:
        return await call(self.app(*bodies, **options), "POST", "/")


@asynccontextmanager
async def proxied(
    name: str, database: str, url: str, **options: Any
) -> AsyncIterator[Side]:
    """Database *database* at *url*, reached by driver *name*, through a proxy."""
    full = make_url(url).set(drivername=FLAVOURS[name])
    if name == "pymysql":
        full = full.update_query_dict({"ssl_disabled": "true"})
    direct = full.render_as_string(hide_password=False)
    async with Trapped(direct) as proxy:
        options = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 5, **options}
        db = kind_of(name)(proxy.url, name=database, **options)
        side = Side(Flavour(name, proxy.url, db), proxy, direct)
        yield side
        await side.flavour.dispose()
