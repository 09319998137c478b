"""Two databases in one application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.flavours import Flavour, Observer
from support.models import add_item
from unitwork import DBSessionMiddleware


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
