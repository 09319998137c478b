"""The database, and the session as a dependency of endpoints."""

import os
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession

from unitwork import AsyncDatabase, DatabaseSettings

db = AsyncDatabase(
    os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///items.db"),
    replicas=os.environ.get("REPLICA_URLS", "").split(),
    settings=DatabaseSettings(transaction_pooler="PGBOUNCER" in os.environ),
)

SessionDep = Annotated[AsyncSession, Depends(db.session)]
