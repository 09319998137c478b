"""A small application: items are listed and created over HTTP."""

from __future__ import annotations

from fastapi import FastAPI

from support.flavours import Flavour
from support.models import add_item, names
from unitwork import DBSessionMiddleware


async def create_item(flavour: Flavour, name: str) -> None:
    """Add an item in the unit of the caller; give it its id."""
    await flavour.do(flavour.db.current, lambda session: add_item(session, name).id)


def items_app(flavour: Flavour) -> FastAPI:
    """GET /items lists the names, POST /items/{name} creates one."""
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.get("/items")(flavour.endpoint(names))

    @app.post("/items/{name}")
    async def create(name: str) -> None:
        await create_item(flavour, name)

    return app
