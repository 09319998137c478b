"""An application of which each process has a small pool, and says how full it is."""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from support.models import Item
from unitwork import AsyncDatabase, DBSessionMiddleware

POOL = 3
WORKING = text("SELECT pg_sleep(0.05)")
OPEN = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pooled'")

db = AsyncDatabase(
    os.environ["UNITWORK_SERVED"],
    pool_size=2,
    max_overflow=POOL - 2,
    connect_args={"server_settings": {"application_name": "pooled"}},
)
app = FastAPI()
app.add_middleware(DBSessionMiddleware, db=db)


@app.post("/items/{name}", status_code=201)
async def create(
    name: str, session: Annotated[AsyncSession, Depends(db.session)]
) -> tuple[int, int]:
    """How many connections this process has in use, and all processes have open."""
    session.add(Item(name=name))
    await session.execute(WORKING)
    return db.pool_status().checked_out, (await session.scalars(OPEN)).one()
