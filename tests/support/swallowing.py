"""Errors that an application swallows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.endpoints import serve_fastapi
from support.flavours import Flavour
from support.models import Item, add_item
from unitwork import DBSessionMiddleware, UnitOfWork, current_unit


def core(session: Session) -> None:
    session.execute(insert(Item).values(name="one"))


def plain_text(session: Session) -> None:
    session.execute(text("INSERT INTO item (name) VALUES ('one')"))


def wrong_sql(session: Session) -> None:
    session.execute(text("SELECT * FROM nowhere"))


def write_and_swallow(failing: Callable[[Session], None]) -> Callable[[Session], str]:
    def body(session: Session) -> str:
        add_item(session)
        with pytest.raises(DBAPIError):
            failing(session)
        return "all is well"

    return body


async def post_noting_unit(
    flavour: Flavour, body: Callable[[Session], object]
) -> tuple[Reply, UnitOfWork]:
    """Make a request that runs *body*; give the unit, too."""
    units: list[UnitOfWork] = []

    def noted(session: Session) -> None:
        units.append(current_unit())
        body(session)

    app = serve_fastapi(flavour, noted, answer_errors=False)
    return await call(app, "POST", "/"), units[0]


async def post(flavour: Flavour, body: Callable[[Session], object]) -> Reply:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(flavour.endpoint(body))
    return await call(app, "POST", "/")
