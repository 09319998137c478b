"""An application for a server in a process of its own."""

import asyncio
import os

from fastapi import FastAPI

from support.flavours import Flavour
from support.models import add_item, names
from unitwork import AsyncDatabase, Database, DBSessionMiddleware

_name, _url = os.environ["UNITWORK_SERVED"].split(maxsplit=1)
_kind = Database if _name in ("sqlite3", "psycopg") else AsyncDatabase
flavour = Flavour(_name, _url, _kind(_url))

app = FastAPI()
app.add_middleware(DBSessionMiddleware, db=flavour.db)
app.get("/items")(flavour.endpoint(names))


@app.post("/items/{name}")
async def create(name: str) -> None:
    await flavour.do(flavour.db.current, lambda session: add_item(session, name).id)


@app.post("/hang/{name}")
async def hang(name: str) -> None:
    await create(name)
    await asyncio.Event().wait()
