"""An application for a server in a process of its own."""

import asyncio
import os

from support.flavours import Flavour
from support.items import create_item, items_app
from unitwork import AsyncDatabase, Database

_name, _url = os.environ["UNITWORK_SERVED"].split(maxsplit=1)
_kind = Database if _name in ("sqlite3", "psycopg") else AsyncDatabase
flavour = Flavour(_name, _url, _kind(_url))

app = items_app(flavour)


@app.post("/hang/{name}")
async def hang(name: str) -> None:
    await create_item(flavour, name)
    await asyncio.Event().wait()
