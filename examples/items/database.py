"""The database, and the session as a dependency of endpoints."""

import os
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession

from unitwork import AsyncDatabase

db = AsyncDatabase(
    os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///items.db"),
    replicas=os.environ.get("REPLICA_URLS", "").split(),
)

SessionDep = Annotated[AsyncSession, Depends(db.session)]
