"""Two databases in one application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.databases import check_nothing_is_left, empty_tables
from support.flavours import FLAVOURS, SYNC, Flavour, Observer
from support.models import add_item
from unitwork import AsyncDatabase, Database, DBSessionMiddleware


@dataclass
class Two:
    """Two databases, and what others see in them."""

    first: Flavour
    second: Flavour

    def seen(self) -> tuple[list[str], list[str]]:
        return Observer(self.first.url).names(), Observer(self.second.url).names()

    async def do_both(
        self, one: Callable[[Session], Any], other: Callable[[Session], Any]
    ) -> None:
        await self.first.do(await self.first.db.session(), one)
        await self.second.do(await self.second.db.session(), other)

    async def request(self, endpoint: Callable[..., Any], **options: Any) -> Reply:
        app = FastAPI()
        databases = [self.first.db, self.second.db]
        options = {"answer_errors": False, **options}
        app.add_middleware(DBSessionMiddleware, db=databases, **options)
        app.post("/")(endpoint)
        return await call(app, "POST", "/")


def add(session: Session) -> None:
    add_item(session)


def fail(session: Session) -> None:
    raise LookupError


@asynccontextmanager
async def second_database(name: str, folder: Path) -> AsyncIterator[Flavour]:
    """A database of SQLite by the driver *name*, called "second", in a new file."""
    url = f"{FLAVOURS[name]}:///{folder}/second.db"
    kind = Database if name in SYNC else AsyncDatabase
    second = Flavour(name, url, kind(url, name="second"))
    empty_tables(url)
    yield second
    await check_nothing_is_left(second)
    await second.dispose()
