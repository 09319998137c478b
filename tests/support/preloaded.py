"""An application that uses its database while it is imported, as with `--preload`."""

from __future__ import annotations

import asyncio
import os
from functools import partial

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.flavours import Flavour, kind_of
from support.models import add_item, names
from unitwork import DBSessionMiddleware


def backend(session: Session) -> int:
    return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())


async def use(flavour: Flavour) -> int:
    await flavour.work(names)
    return int(await flavour.work(backend))


NAME, URL = os.environ["UNITWORK_SERVED"].split()
flavour = Flavour(NAME, URL, kind_of(NAME)(URL, pool_size=1, max_overflow=0))
OF_THE_PARENT = asyncio.run(use(flavour))

app = FastAPI()
app.add_middleware(DBSessionMiddleware, db=flavour.db)


@app.post("/items/{number}", status_code=201)
async def create(number: int) -> bool:
    """Whether the connection is this worker's own."""
    session = flavour.db.current
    await flavour.do(session, partial(add_item, name=f"item {number}"))
    return await flavour.do(session, backend) != OF_THE_PARENT
