"""The database, and the session as a dependency of endpoints."""

import os
from typing import Annotated

from fastapi import Depends
from sqlalchemy.orm import Session

from unitwork import Database, DatabaseSettings

db = Database(
    os.environ.get("DATABASE_URL", "sqlite:///items.db"),
    replicas=os.environ.get("REPLICA_URLS", "").split(),
    settings=DatabaseSettings(transaction_pooler="PGBOUNCER" in os.environ),
)

SessionDep = Annotated[Session, Depends(db.session)]
